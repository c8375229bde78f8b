"""`/run-task/` and `/task-status/`: two requests without a password, for trying whether the stack works."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import and_, func, select

from fba_app import errors
from fba_app.dependencies import Session
from fba_app.problems import TooManyRequestsError
from fba_app.settings import Settings
from fba_app.tasks import service
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import KINDS
from fba_app.types import Model

CELERY_STATES = {
    State.QUEUED: "PENDING",
    State.RUNNING: "STARTED",
    State.WAITING: "STARTED",
    State.RETRYING: "RETRY",
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FAILURE",
    State.CANCELLED: "REVOKED",
}
"""As Celery calls them."""


OURS = and_(Task.kind == "sleep", Task.submitted_by.is_(None))
"""The tasks that this module has submitted: those of users are not for everybody."""


class Submitted(Model):
    """The task is accepted."""

    task_id: UUID
    status: str = "Task submitted"


class TaskStatus(Model):
    """Celery's state of a task, and what it gave if it succeeded."""

    status: str
    result: Any = None


def router(settings: Settings) -> APIRouter:
    """The routes that these settings allow."""
    routes = APIRouter(tags=["try it"])

    @routes.get(
        "/task-status/{task_id}",
        summary="Ask how it fares",
        response_model_exclude_unset=True,
        responses=errors.responses(422, 503),
    )
    async def task_status(
        session: Session, response: Response, task_id: Annotated[str, Path(max_length=255)]
    ) -> TaskStatus:
        """Report the state of a task of `/run-task/`. An unknown one is PENDING, as with Celery."""
        response.headers["Cache-Control"] = "no-store"
        try:
            known = Task.id == UUID(task_id)
        except ValueError:
            return TaskStatus(status="PENDING")
        query = select(Task).where(known, OURS)
        task = (await session.scalars(query)).one_or_none()
        if task is None:
            return TaskStatus(status="PENDING")
        status = CELERY_STATES[State(task.state)]
        return TaskStatus(status=status, result=task.result["message"]) if task.result else TaskStatus(status=status)

    if settings.run_task_enabled:
        longest = settings.longest_sleep

        @routes.get("/run-task/", summary="Run a task that waits", responses=errors.responses(422, 429, 503))
        async def run_task(
            session: Session,
            response: Response,
            duration: Annotated[int, Query(ge=0, le=longest, description="Seconds.")] = min(5, longest),
        ) -> Submitted:
            """Submit a task that waits for so many seconds."""
            # A GET with an effect: an answer from a cache would name a task that ran before.
            response.headers["Cache-Control"] = "no-store"
            most = settings.run_task_max_open
            still_open = select(Task.id).where(OURS, Task.finished_at.is_(None)).limit(most)
            if await session.scalar(select(func.count()).select_from(still_open.subquery())) == most:
                raise TooManyRequestsError(f"{most} tasks are waiting or running already.", retry_after=5)
            task, _ = await service.accept(session, KINDS["sleep"], {"duration": duration})
            return Submitted(task_id=task.id)

    return routes
