"""The bench's routes in the stack's own application, where the variant for the bench has this module as `fba_app.bench_routes`."""

import time
from uuid import UUID

from fastapi import APIRouter
from fba_app.bench import app
from fba_app.dependencies import Session
from fba_app.tasks import service
from fba_app.tasks.registry import KINDS

router = APIRouter(prefix="/bench")


@router.get("/submit")
async def submit(session: Session) -> UUID:
    """Submit a task as the application does: once this has answered, it will be run."""
    task, _ = await service.accept(session, KINDS["sleep"], {"duration": 0})
    return task.id


@router.get("/apply-async")
async def apply_async() -> str:
    """Submit a task as it is mostly done. The broker confirms it, as the stack's settings of Celery say; nothing else keeps it."""
    return app.tasks["noop"].apply_async(args=[time.time()]).id
