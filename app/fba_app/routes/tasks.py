"""Run a task, and ask how it fares."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel

from fba_app import cache
from fba_app.celery import app as celery_app
from fba_app.publish import submit
from fba_app.settings import Settings
from fba_app.tasks import sleep


class Submitted(BaseModel):
    """The broker has the task."""

    task_id: str
    status: str = "Task submitted"


class TaskStatus(BaseModel):
    """Celery's state of a task, and what it returned if it succeeded."""

    status: str
    result: Any = None


def router(settings: Settings) -> APIRouter:
    """The routes that these settings allow."""
    routes = APIRouter(tags=["tasks"])

    if settings.run_task_enabled:
        longest = settings.run_task_max_duration

        @routes.get("/run-task/")
        async def run_task(
            response: Response,
            duration: Annotated[int, Query(ge=0, le=longest, description="seconds")] = min(5, longest),
        ) -> Submitted:
            """Submit a task that waits for so many seconds."""
            # A GET with an effect: an answer from a cache would name a task that ran before.
            response.headers["Cache-Control"] = "no-store"
            return Submitted(task_id=await submit(sleep, duration))

    @routes.get("/task-status/{task_id}", response_model_exclude_unset=True)
    async def task_status(
        response: Response,
        task_id: Annotated[str, Path(max_length=255)],
    ) -> TaskStatus:
        """Report a task's state. An unknown task is PENDING, as Celery cannot tell it from one not yet begun."""
        response.headers["Cache-Control"] = "no-store"
        # Read without Celery's own call, which blocks and retries for as long as Redis is away.
        stored = await cache.client().get(celery_app.backend.get_key_for_task(task_id))
        if stored is None:
            return TaskStatus(status="PENDING")
        meta = celery_app.backend.decode_result(stored)
        if meta["status"] == "SUCCESS":
            return TaskStatus(status="SUCCESS", result=meta["result"])
        return TaskStatus(status=meta["status"])

    return routes
