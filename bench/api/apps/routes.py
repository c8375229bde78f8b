"""The bench's routes in the stack's own application, where the variant for the bench has this module as `fba_app.bench_routes`."""

import time
from uuid import UUID

from celery import Celery
from fastapi import APIRouter
from fba_app.bench import app
from fba_app.dependencies import Session
from fba_app.tasks import service
from fba_app.tasks.registry import KINDS

router = APIRouter(prefix="/bench")

plain = Celery("plain", broker=app.conf.broker_url, backend=app.conf.result_backend.partition("+")[2])
"""Celery as it is used where nobody has tuned it, but for one setting: the broker confirms what is published."""

plain.conf.update(
    broker_use_ssl=app.conf.broker_use_ssl,
    redis_backend_use_ssl=app.conf.redis_backend_use_ssl,
    broker_transport_options={"confirm_publish": True},
)


@plain.task(name="plain")
def wanted(submitted: float) -> float:
    """Stand for a task. Nobody runs it."""
    return submitted


@router.get("/submit")
async def submit(session: Session) -> UUID:
    """Submit a task as the application does: once this has answered, it will be run."""
    task, _ = await service.accept(session, KINDS["sleep"], {"duration": 0})
    return task.id


@router.get("/apply-async")
def apply_async() -> str:
    """Submit a task as it is mostly done: in one of the server's threads, because it waits. Nothing but the broker keeps it."""
    return wanted.apply_async(args=[time.time()]).id
