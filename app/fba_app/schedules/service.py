"""Schedules as the server sees them: made, changed, run out of turn. Running them in their time is beat's part."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.audit.record import record
from fba_app.problems import ConflictError, NotFoundError
from fba_app.schedules.models import Schedule
from fba_app.schedules.times import next_run
from fba_app.settings import get_settings
from fba_app.tasks import service as tasks
from fba_app.tasks.models import Task
from fba_app.tasks.registry import KINDS
from fba_app.tasks.relay import relay
from fba_app.tasks.requests import AnyTaskRequest
from fba_app.users.principal import Principal


async def get(session: AsyncSession, schedule_id: UUID, *, lock: bool = False) -> Schedule:
    """Return a schedule, and keep it from others until the transaction ends, if so wished.

    Raises:
        NotFoundError: there is none.
    """
    query = select(Schedule).where(Schedule.id == schedule_id)
    if lock:
        # As it is now, and not as this session has seen it before.
        query = query.with_for_update().execution_options(populate_existing=True)
    schedule = (await session.scalars(query)).one_or_none()
    if schedule is None:
        raise NotFoundError(f"There is no schedule {schedule_id}.")
    return schedule


async def _commit(session: AsyncSession, schedule: Schedule) -> None:
    name = schedule.name
    try:
        await session.commit()
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != "uq_schedules_name":
            raise
        raise ConflictError(f"There is a schedule {name} already.") from None
    await session.refresh(schedule)


async def _now(session: AsyncSession) -> datetime:
    """Return the time by the clock that beat goes by."""
    return (await session.execute(select(func.now()))).scalar_one()


def _aim(schedule: Schedule, now: datetime) -> None:
    schedule.next_run_at = next_run(schedule.crontab, schedule.every, now) if schedule.enabled else None


async def create(
    session: AsyncSession,
    user: Principal,
    *,
    name: str,
    task: AnyTaskRequest,
    crontab: str | None,
    every: int | None,
    enabled: bool,
) -> Schedule:
    """Make a schedule. Its tasks will be those of this user.

    Raises:
        ConflictError: the name is taken.
        ProblemError: this user may not submit such a task.
    """
    await tasks.validate(session, user, task)
    schedule = Schedule(
        id=uuid4(),
        name=name,
        kind=task.kind,
        arguments=task.arguments.model_dump(mode="json"),
        crontab=crontab,
        every=every,
        enabled=enabled,
        created_by=user.id,
    )
    _aim(schedule, await _now(session))
    session.add(schedule)
    details = {"name": name, "kind": task.kind, "crontab": crontab, "every": every, "enabled": enabled}
    record(session, user, "schedule.create", schedule.id, **details)
    await _commit(session, schedule)
    return schedule


async def change(
    session: AsyncSession,
    user: Principal,
    schedule_id: UUID,
    *,
    name: str | None = None,
    task: AnyTaskRequest | None = None,
    crontab: str | None = None,
    every: int | None = None,
    enabled: bool | None = None,
) -> Schedule:
    """Change what is given of a schedule, and leave the rest; a crontab takes the place of an interval and vice versa.

    Raises:
        NotFoundError, ConflictError: there is no such schedule, or the name is taken.
        ProblemError: this user may not submit such a task.
    """
    if task is not None:
        await tasks.validate(session, user, task)
    schedule = await get(session, schedule_id, lock=True)
    wanted: dict[str, Any] = {"name": name, "enabled": enabled}
    if task is not None:
        wanted |= {"kind": task.kind, "arguments": task.arguments.model_dump(mode="json")}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    if crontab is not None or every is not None:
        wanted |= {"crontab": crontab, "every": every}
    changed = {key: value for key, value in wanted.items() if getattr(schedule, key) != value}
    if not changed:
        return schedule
    # Before the changes: asking would write them, and they are not complete yet.
    now = await _now(session)
    for key, value in changed.items():
        setattr(schedule, key, value)
    if changed.keys() & {"crontab", "every", "enabled"}:
        _aim(schedule, now)
    schedule.changed_at = now
    # That they changed is enough: they may be long, and not for everybody who reads the log.
    record(
        session,
        user,
        "schedule.change",
        schedule.id,
        **changed | ({"arguments": "…"} if "arguments" in changed else {}),
    )
    await _commit(session, schedule)
    return schedule


async def delete(session: AsyncSession, user: Principal, schedule_id: UUID) -> None:
    """Delete a schedule; its tasks stay.

    Raises:
        NotFoundError: there is none.
    """
    schedule = await get(session, schedule_id, lock=True)
    record(session, user, "schedule.delete", schedule.id, name=schedule.name, kind=schedule.kind)
    await session.delete(schedule)
    await session.commit()


async def run(
    session: AsyncSession, user: Principal, schedule_id: UUID, idempotency_key: str | None
) -> tuple[Task, bool]:
    """Add a task as a tick does, now; return it, and whether it is new.

    It is a task of whoever made the schedule, as the ticks' are: what it reads and writes may be theirs alone.

    Raises:
        NotFoundError: there is no such schedule.
        ConflictError: its kind of task cannot be run here, or the key belongs to another task.
    """
    schedule = await get(session, schedule_id)
    kind = KINDS.get(schedule.kind)
    if kind is None:
        raise ConflictError(f"There is no kind of task {schedule.kind} any more.")
    if reason := kind.unavailable(get_settings()):
        raise ConflictError(f"{kind.name} is not available here: {reason}.")
    key = None if idempotency_key is None else f"schedule:{schedule.id}:run:{user.id}:{idempotency_key}"
    task, new = await tasks.add(
        session, kind, schedule.arguments, submitted_by=schedule.created_by, idempotency_key=key
    )
    if new:
        record(session, user, "schedule.run", schedule.id, task_id=str(task.id))
    await session.commit()
    relay.wake()
    return task, new
