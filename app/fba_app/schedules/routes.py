"""`/api/v1/schedules`."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Response, status
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import select

from fba_app import errors
from fba_app.dependencies import Cursor, Limit, Session
from fba_app.paging import page
from fba_app.schedules import service
from fba_app.schedules.models import SHORTEST, Schedule
from fba_app.schedules.times import next_run
from fba_app.tasks import routes as tasks
from fba_app.tasks.requests import TaskRequest
from fba_app.types import Json, Model, Page, ShortText
from fba_app.users.access import require
from fba_app.users.principal import Permission, Principal

LONGEST = 366 * 86400
"""Seconds between two runs, at most."""

router = APIRouter(prefix="/api/v1/schedules", tags=["schedules"])
Manager = Annotated[Principal, Depends(require(Permission.SCHEDULES_MANAGE))]


def _comes_true(crontab: str) -> str:
    next_run(crontab, None, datetime.now(UTC))
    return crontab


Crontab = Annotated[
    str,
    StringConstraints(max_length=100, pattern=r"^[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}$"),
    AfterValidator(_comes_true),
]
Seconds = Annotated[int, Field(strict=True, ge=SHORTEST, le=LONGEST)]

CRONTAB = (
    "Minute, hour, day of the month, month, day of the week, one space between each, as in crontab(5); "
    "in the time zone that the setting TIMEZONE names."
)
EVERY = (
    "Seconds between two runs; they are at the multiples of it since 1970, so 3600 is at each full hour. "
    "In the place of a crontab."
)
TASK: Json = {"kind": "sleep", "arguments": {"duration": 5}}


class NewSchedule(Model):
    """A task, and when it comes: by either `crontab` or `every`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"name": "Every night", "task": TASK, "crontab": "30 3 * * *"},
            "oneOf": [
                {
                    "required": ["crontab"],
                    "properties": {"crontab": {"type": "string"}, "every": {"type": "null"}},
                },
                {
                    "required": ["every"],
                    "properties": {"crontab": {"type": "null"}, "every": {"type": "integer"}},
                },
            ],
        }
    )

    name: ShortText = Field(description="Of this schedule alone.")
    task: TaskRequest
    crontab: Crontab | None = Field(default=None, description=CRONTAB)
    every: Seconds | None = Field(default=None, description=EVERY)
    enabled: bool = Field(default=True, strict=True)

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.crontab is None) == (self.every is None):
            raise ValueError("must have either `crontab` or `every`")
        return self


class ScheduleChange(Model):
    """What to change; the rest stays. `crontab` takes the place of `every`, and vice versa."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"every": 600},
            "not": {
                "required": ["crontab", "every"],
                "properties": {"crontab": {"type": "string"}, "every": {"type": "integer"}},
            },
        }
    )

    name: ShortText | None = None
    task: TaskRequest | None = None
    crontab: Crontab | None = Field(default=None, description=CRONTAB)
    every: Seconds | None = Field(default=None, description=EVERY)
    enabled: bool | None = Field(default=None, strict=True)

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.crontab is not None and self.every is not None:
            raise ValueError("must not have both `crontab` and `every`")
        return self


class ScheduledTask(Model):
    """What is submitted each time."""

    kind: str
    arguments: dict[str, Any]


class ScheduleView(Model):
    """A schedule."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "5d2c8f0e-77f1-4c0b-8a52-0d1f3b1f6a90",
                "name": "Every night",
                "task": TASK,
                "crontab": "30 3 * * *",
                "every": None,
                "enabled": True,
                "created_by": "3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10",
                "created_at": "2026-11-20T12:00:00Z",
                "changed_at": "2026-11-20T12:00:00Z",
                "last_run_at": "2026-11-21T03:30:00Z",
                "next_run_at": "2026-11-22T03:30:00Z",
            }
        }
    )

    id: UUID
    name: str
    task: ScheduledTask
    crontab: str | None
    every: int | None = Field(description="Seconds.")
    enabled: bool
    created_by: UUID | None = Field(description="Whose tasks they are; nobody's once that user is deleted.")
    created_at: datetime
    changed_at: datetime
    last_run_at: datetime | None = Field(description="For when the last run was scheduled.")
    next_run_at: datetime | None = Field(description="For when the next one is; none while not enabled.")

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Build the view of a row."""
        values = {name: getattr(schedule, name) for name in cls.model_fields if name != "task"}
        return cls(task=ScheduledTask.model_validate(schedule), **values)


class RunView(Model):
    """The task that was added."""

    task_id: UUID


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Make a schedule",
    responses=errors.responses(401, 403, 404, 409, 413, 422, 503),
)
async def create(body: NewSchedule, user: Manager, session: Session, response: Response) -> ScheduleView:
    """Have a task submitted again and again, in your name; 409 if the name is taken, or the task cannot be run here."""
    schedule = await service.create(
        session, user, name=body.name, task=body.task, crontab=body.crontab, every=body.every, enabled=body.enabled
    )
    response.headers["Location"] = f"{router.prefix}/{schedule.id}"
    return ScheduleView.of(schedule)


@router.get("", summary="List schedules", responses=errors.responses(401, 403, 422, 503))
async def list_schedules(_: Manager, session: Session, limit: Limit = 50, cursor: Cursor = None) -> Page[ScheduleView]:
    """Return everyone's schedules, the newest first."""
    schedules, following = await page(session, select(Schedule), Schedule, limit, cursor)
    return Page(items=[ScheduleView.of(schedule) for schedule in schedules], next=following)


@router.get("/{schedule_id}", summary="See a schedule", responses=errors.responses(401, 403, 404, 422, 503))
async def get_schedule(schedule_id: UUID, _: Manager, session: Session) -> ScheduleView:
    """Return a schedule."""
    return ScheduleView.of(await service.get(session, schedule_id))


@router.patch(
    "/{schedule_id}", summary="Change a schedule", responses=errors.responses(401, 403, 404, 409, 413, 422, 503)
)
async def change(schedule_id: UUID, body: ScheduleChange, user: Manager, session: Session) -> ScheduleView:
    """Change what is given; beat knows within seconds. What was missed while it was not enabled is not made up for."""
    schedule = await service.change(
        session,
        user,
        schedule_id,
        name=body.name,
        task=body.task,
        crontab=body.crontab,
        every=body.every,
        enabled=body.enabled,
    )
    return ScheduleView.of(schedule)


@router.delete(
    "/{schedule_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a schedule",
    responses=errors.responses(401, 403, 404, 422, 503),
)
async def delete(schedule_id: UUID, user: Manager, session: Session) -> None:
    """Delete a schedule; the tasks that it has added stay."""
    await service.delete(session, user, schedule_id)


@router.post(
    "/{schedule_id}/run",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Run a schedule now",
    responses=errors.responses(401, 403, 404, 409, 422, 503),
)
async def run(
    schedule_id: UUID,
    user: Manager,
    session: Session,
    response: Response,
    idempotency_key: tasks.IdempotencyKey = None,
) -> RunView:
    """Add its task once more, enabled or not; when it runs next stays as it is."""
    task, new = await service.run(session, user, schedule_id, idempotency_key)
    response.headers["Location"] = f"{tasks.router.prefix}/{task.id}"
    if not new:
        response.headers["Idempotent-Replayed"] = "true"
    return RunView(task_id=task.id)
