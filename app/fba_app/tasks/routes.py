"""`/api/v1/tasks`."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from fba_app import db, errors
from fba_app.audit.record import record
from fba_app.dependencies import Cursor, Limit, Session
from fba_app.paging import page
from fba_app.problems import ConflictError, ProblemError
from fba_app.settings import get_settings
from fba_app.tasks import service
from fba_app.tasks.models import FINAL, State, Task
from fba_app.tasks.progress import Progress
from fba_app.tasks.registry import KINDS
from fba_app.tasks.requests import TaskRequest
from fba_app.types import Model, Page, ShortText
from fba_app.users.access import current_user, require
from fba_app.users.principal import Permission, Principal

EVENT_INTERVAL = 1.0
"""Seconds between two looks at a task that someone watches."""

STREAM_LIFETIME = 8.0
"""Seconds after which a stream ends, and the client asks again: a server that shall stop waits for it.

Not much longer than for a client that reads slowly. To ask again is one request more; a stream looks every second.
"""

RECONNECT = 100
"""Milliseconds that a client waits before it does."""

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])
Submitter = Annotated[Principal, Depends(require(Permission.TASKS_SUBMIT))]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Your own name for this request: sent again, it gives the same task, and no second one.",
    ),
]

EXAMPLE: JsonDict = {
    "id": "0b0f9a2e-6f0e-4a55-9f5c-3d1f6f0a7c11",
    "kind": "sleep",
    "state": "running",
    "progress": 40.0,
    "message": "2 of 5 seconds",
    "attempt": 1,
    "error": None,
    "arguments": {"duration": 5},
    "submitted_by": "3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10",
    "created_at": "2026-11-20T12:00:00Z",
    "started_at": "2026-11-20T12:00:00.1Z",
    "finished_at": None,
}


class TaskView(Model):
    """A task, and how far it has come."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    id: UUID
    kind: str
    state: State
    progress: float = Field(ge=0, le=100, description="Percent.")
    message: str = Field(description="What is being done.")
    attempt: int = Field(description="Which attempt runs or ran last; 0 before the first.")
    error: str | None = Field(description="Why it failed, or why the last attempt did.")
    arguments: dict[str, Any]
    submitted_by: UUID | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, task: Task, known: dict[UUID, Progress]) -> Self:
        """Build the view of a row."""
        percent, message = known.get(task.id, (0.0, ""))
        return cls(
            **{name: getattr(task, name) for name in cls.model_fields if name not in ("progress", "message")},
            progress=percent,
            message=message,
        )


class TaskResult(Model):
    """What a task gave."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0b0f9a2e-6f0e-4a55-9f5c-3d1f6f0a7c11",
                "kind": "sleep",
                "result": {"message": "Task completed in 5 seconds!"},
            }
        }
    )

    id: UUID
    kind: str
    result: dict[str, Any]


class KindView(Model):
    """A kind of task."""

    name: str
    unavailable: str | None = Field(description="Why it cannot be run here.")
    description: str
    queue: str
    time_limit: int = Field(description="Seconds.")
    max_attempts: int


async def _view(task: Task) -> TaskView:
    return TaskView.of(task, await service.percent([task]))


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Submit a task",
    responses=errors.responses(401, 403, 409, 413, 415, 422, 503),
)
async def submit(
    request: TaskRequest,
    user: Submitter,
    session: Session,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> TaskView:
    """Accept a task. Once this is answered with 202 it will run, whatever restarts in between."""
    task, new = await service.submit(session, user, request, idempotency_key)
    response.headers["Location"] = f"{router.prefix}/{task.id}"
    if not new:
        response.headers["Idempotent-Replayed"] = "true"
    return await _view(task)


@router.get("", summary="List tasks", responses=errors.responses(401, 403, 422, 503))
async def list_tasks(
    user: Submitter,
    session: Session,
    kind: Annotated[ShortText | None, Query(description="Only of this kind.")] = None,
    state: Annotated[State | None, Query(description="Only in this state.")] = None,
    everyone: Annotated[bool, Query(description="Also other users' tasks; needs `tasks:manage`.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TaskView]:
    """Return tasks, the newest first."""
    query = service.visible(user, everyone)
    if kind is not None:
        query = query.where(Task.kind == kind)
    if state is not None:
        query = query.where(Task.state == state)
    # Results may be large, and are not shown here.
    light = query.options(defer(Task.result), defer(Task.checkpoint))
    tasks, following = await page(session, light, Task, limit, cursor)
    known = await service.percent(tasks)
    return Page(items=[TaskView.of(task, known) for task in tasks], next=following)


@router.get("/kinds", summary="List the kinds of tasks", responses=errors.responses(401, 403, 503))
async def kinds(_: Submitter) -> list[KindView]:
    """Return what can be submitted, and what could be with other settings."""
    settings = get_settings()
    return [
        KindView(
            name=kind.name,
            unavailable=kind.unavailable(settings),
            description=kind.description,
            queue=kind.queue,
            time_limit=min(kind.time_limit, settings.soft_time_limit),
            max_attempts=kind.max_attempts,
        )
        for kind in KINDS.values()
        if kind.public
    ]


@router.get("/{task_id}", summary="See a task", responses=errors.responses(401, 403, 404, 422, 503))
async def get_task(task_id: UUID, user: Submitter, session: Session, response: Response) -> TaskView:
    """Return where a task stands."""
    response.headers["Cache-Control"] = "no-store"
    return await _view(await service.get(session, user, task_id))


@router.get(
    "/{task_id}/result", summary="Get a task's result", responses=errors.responses(401, 403, 404, 409, 422, 503)
)
async def get_result(task_id: UUID, user: Submitter, session: Session) -> TaskResult:
    """Return what a task gave; 409 while there is nothing, or if there never will be."""
    task = await service.get(session, user, task_id)
    if task.state != State.SUCCEEDED or task.result is None:
        raise ConflictError(f"The task has no result: it is {task.state}." + (f" {task.error}" if task.error else ""))
    return TaskResult(id=task.id, kind=task.kind, result=task.result)


@router.post(
    "/{task_id}/cancel",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Cancel a task",
    responses=errors.responses(401, 403, 404, 409, 422, 503),
)
async def cancel(task_id: UUID, user: Submitter, session: Session) -> TaskView:
    """End a task: at once if it waits, within seconds if it runs; 409 if it has ended already."""
    task = await service.get(session, user, task_id)
    record(session, user, "task.cancel", task_id, kind=task.kind)
    await service.cancel(session, task)
    return await _view(task)


async def _watched(task_id: UUID, user: Submitter, session: Session) -> TaskView:
    # A dependency, because it must be known before the stream begins whether there is such a task.
    return await _view(await service.get(session, user, task_id))


@router.get(
    "/{task_id}/events",
    summary="Watch a task",
    response_class=EventSourceResponse,
    responses=errors.responses(401, 403, 404, 422, 503),
)
async def events(view: Annotated[TaskView, Depends(_watched)], request: Request) -> AsyncIterator[ServerSentEvent]:
    """Send an event `task` with the task, as `GET /tasks/{task_id}` shows it, at each change.

    The stream ends with the task, or after 8 seconds: then ask again, as a browser's `EventSource` does by itself.
    """
    shown = None
    until = time.monotonic() + STREAM_LIFETIME
    while time.monotonic() < until:
        if view != shown:
            yield ServerSentEvent(event="task", data=view, retry=RECONNECT)
            shown = view
        if view.state in FINAL:
            return
        await asyncio.sleep(EVENT_INTERVAL)
        try:
            user = await current_user(request)
            async with AsyncSession(db.async_engine(), expire_on_commit=False) as session:
                view = await _view(await service.get(session, user, view.id))
        except ProblemError:
            # Logged out, or the task is gone.
            return
        except (RedisError, SQLAlchemyError) as error:
            logger.warning("a watched task cannot be read: %s", error)
