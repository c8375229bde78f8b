"""Tasks as the server sees them: accepted, looked up, cancelled. Running them is the worker's part."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.problems import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from fba_app.settings import get_settings
from fba_app.tasks import progress
from fba_app.tasks.intake import Row, insert_tasks, intake
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import KINDS, Kind
from fba_app.tasks.relay import relay
from fba_app.tasks.requests import AnyTaskRequest
from fba_app.users.principal import Permission, Principal


async def validate(session: AsyncSession, user: Principal, request: AnyTaskRequest) -> Kind:
    """Return the kind of a request that this user may make in this deployment.

    Raises:
        ConflictError: the kind cannot be run here.
        ProblemError: whatever the kind itself refuses.
    """
    kind = KINDS[request.kind]
    if reason := kind.unavailable(get_settings()):
        raise ConflictError(f"{kind.name} is not available here: {reason}.")
    if kind.check:
        await kind.check(session, user, request.arguments)
    return kind


def _row(kind: Kind, arguments: dict[str, Any], submitted_by: UUID | None, idempotency_key: str | None) -> Row:
    """Return the row of a new task.

    Raises:
        UnavailableError: the broker is known to be away.
    """
    if not relay.available:
        raise UnavailableError("broker")
    return {
        "id": uuid4(),
        "kind": kind.name,
        "queue": kind.queue,
        "state": State.QUEUED,
        "arguments": arguments,
        "submitted_by": submitted_by,
        "idempotency_key": idempotency_key,
    }


async def _known(session: AsyncSession, row: Row) -> Task:
    """Return the task that has the key of a row already. Raises ConflictError if it is another one."""
    task = (await session.scalars(select(Task).where(Task.idempotency_key == row["idempotency_key"]))).one()
    if (task.kind, task.arguments) != (row["kind"], row["arguments"]):
        raise ConflictError("This Idempotency-Key belongs to another task.")
    return task


async def add(
    session: AsyncSession,
    kind: Kind,
    arguments: dict[str, Any],
    *,
    submitted_by: UUID | None = None,
    idempotency_key: str | None = None,
) -> tuple[Task, bool]:
    """Add a task, or find the one that has the key already; return it, and whether it is new.

    For callers that write more in the same transaction. They commit, and wake the relay.

    Raises:
        ConflictError: the key belongs to a task of another kind, or with other arguments.
        UnavailableError: the broker is known to be away; nothing was written.
    """
    row = _row(kind, arguments, submitted_by, idempotency_key)
    if task := (await insert_tasks(session, [row])).get(row["id"]):
        return task, True
    return await _known(session, row), False


async def accept(
    session: AsyncSession,
    kind: Kind,
    arguments: dict[str, Any],
    *,
    submitted_by: UUID | None = None,
    idempotency_key: str | None = None,
) -> tuple[Task, bool]:
    """Add a task that is all there is to write, together with those of others; it is committed when this returns.

    So is what the session has done before. Returns and raises as `add`.
    """
    row = _row(kind, arguments, submitted_by, idempotency_key)
    # The session's connection goes back: who waits for others needs none, and they do.
    if session.in_transaction():
        await session.commit()
    if task := await intake.add(row):
        relay.wake()
        return task, True
    return await _known(session, row), False


async def submit(
    session: AsyncSession, user: Principal, request: AnyTaskRequest, idempotency_key: str | None = None
) -> tuple[Task, bool]:
    """Accept a task: once this returns, it will run. Return it, and whether it is new.

    Raises:
        ProblemError: as `validate` and `accept`.
    """
    kind = await validate(session, user, request)
    key = f"user:{user.id}:{idempotency_key}" if idempotency_key is not None else None
    arguments = request.arguments.model_dump(mode="json")
    return await accept(session, kind, arguments, submitted_by=user.id, idempotency_key=key)


def visible(user: Principal, everyone: bool = False) -> Select[Task]:
    """Select the tasks that this user may see, without the parts that tasks split themselves into."""
    query = select(Task).where(Task.parent_id.is_(None))
    if everyone:
        if not user.may(Permission.TASKS_MANAGE):
            raise ForbiddenError(f"To see everyone's tasks needs the permission {Permission.TASKS_MANAGE}.")
        return query
    return query.where(Task.submitted_by == user.id)


async def get(session: AsyncSession, user: Principal, task_id: UUID) -> Task:
    """Return a task. Raises NotFoundError also for one that this user may not see."""
    query = visible(user, everyone=user.may(Permission.TASKS_MANAGE)).where(Task.id == task_id)
    task: Task | None = (await session.scalars(query)).one_or_none()
    if task is None:
        raise NotFoundError(f"There is no task {task_id}.")
    return task


async def _cancel(session: AsyncSession, which: ColumnElement[bool]) -> bool:
    """Cancel what waits and tell what runs, in this order, so that what starts between the two is told."""
    waiting = update(Task).where(which, Task.state.in_([State.QUEUED, State.RETRYING, State.WAITING]))
    running = update(Task).where(which, Task.state == State.RUNNING)
    ended = {"state": State.CANCELLED, "finished_at": func.now(), "cancel_requested": True}
    found = [
        await session.scalars(waiting.values(ended).returning(Task.id)),
        await session.scalars(running.values(cancel_requested=True).returning(Task.id)),
    ]
    return any(rows.all() for rows in found)


async def cancel(session: AsyncSession, task: Task) -> None:
    """End a task: at once if no worker has it, else as soon as the worker hears of it.

    Raises:
        ConflictError: it has ended already.
    """
    # The parts first, as a part that ends takes itself and then its parent: the other way round, both could wait.
    await _cancel(session, Task.parent_id == task.id)
    # Held, so that it does not go from one state to another between the two questions.
    await session.execute(select(Task.id).where(Task.id == task.id).with_for_update())
    found = await _cancel(session, Task.id == task.id)
    await session.commit()
    await session.refresh(task)
    if not found:
        raise ConflictError(f"The task has ended already: it is {task.state}.")


async def percent(tasks: list[Task]) -> dict[UUID, progress.Progress]:
    """Return how far these tasks have come."""
    running = [task.id for task in tasks if task.state in (State.RUNNING, State.RETRYING)]
    known = await progress.read(running)
    for task in tasks:
        if task.state == State.SUCCEEDED:
            known[task.id] = progress.Progress(100.0, "")
        elif task.state == State.WAITING and task.parts:
            done = task.parts - (task.parts_left or 0)
            known[task.id] = progress.Progress(round(100 * done / task.parts, 1), f"{done} of {task.parts} parts")
    return known
