"""Running tasks: what a worker does with a message.

The message only names a row. Whoever gets it claims the row, so a message that comes twice does no harm, and renews the
claim while the task runs, so that a task whose worker has vanished is given to another. Only the attempt that holds the
claim can end the task, and what it changed elsewhere in PostgreSQL is committed with that, or not at all.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

from celery.exceptions import Reject, SoftTimeLimitExceeded
from greenlet import GreenletExit
from pydantic import BaseModel
from sqlalchemy import and_, func, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, configure_mappers

import fba_app.kinds
import fba_app.models  # noqa: F401
from fba_app import db
from fba_app.celery import app
from fba_app.settings import get_settings
from fba_app.tasks.context import CancelledError, ClaimLostError, TaskContext, TimeLimitError
from fba_app.tasks.models import LEASE, State, Task
from fba_app.tasks.registry import KINDS, FanOut, Kind
from fba_app.tasks.relay import celery_name

INTERVAL = 2.0
"""Seconds between two looks of the keeper: how long a cancelled task may go on."""

PATIENCE = 60.0
"""Seconds that the beginning and the end of a task wait for PostgreSQL, before it is left to be run again."""

ENDS = (GreenletExit, SystemExit, KeyboardInterrupt)
"""What ends an attempt from outside: its worker has lost the broker, or is told to stop at once."""

Value = TypeVar("Value")
logger = logging.getLogger(__name__)

# The children of a prefork pool share what is there before they are made. In their first task each would do this for
# itself, in 9 MB.
configure_mappers()


def _lease_end() -> Any:  # noqa: ANN401
    return func.now() + text(f"interval '{LEASE} seconds'")


class NotKeptError(Exception):
    """PostgreSQL was away for too long to be told how an attempt has ended. The task is run again."""


class Keeper:
    """Renews the claims of this process, and tells its tasks when they shall end."""

    def __init__(self) -> None:
        # By their claims: where a lease has run out, two attempts of one task may be here for a while.
        self._running: dict[UUID, TaskContext] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="keeper", daemon=True).start()

    def add(self, claim: UUID, context: TaskContext) -> None:
        """Begin to look after a task."""
        with self._lock:
            self._running[claim] = context

    def remove(self, claim: UUID) -> None:
        """Look after a task no longer."""
        with self._lock:
            self._running.pop(claim, None)

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            with self._lock:
                running = dict(self._running)
            try:
                if running:
                    self._look(running)
            except Exception as error:
                # The claims last a while; a keeper that ended would lose every task of this process.
                logger.warning("the claims of %s tasks are not renewed: %s", len(running), error)

    def _look(self, running: dict[UUID, TaskContext]) -> None:
        mine = Task.id.in_({context.id for context in running.values()})
        with db.session() as session, session.begin():
            rows = session.execute(select(Task.id, Task.claim, Task.cancel_requested).where(mine)).all()
            renewed = update(Task).where(mine, Task.claim.in_(list(running)))
            # Not at every look: it writes a row for each task.
            late = Task.lease_until < func.now() + text(f"interval '{LEASE * 2 // 3} seconds'")
            session.execute(renewed.where(late).values(lease_until=_lease_end()))
        seen = {row.id: row for row in rows}
        for claim, context in running.items():
            row = seen.get(context.id)
            if row is None or row.claim != claim:
                context.stop(ClaimLostError)
            elif row.cancel_requested:
                context.stop(CancelledError)


@lru_cache
def _keeper_of(process: int) -> Keeper:
    del process
    return Keeper()


# A thousand tasks may begin at once, and to start a thread gives way to the next of them.
_keeper_lock = threading.Lock()


def keeper() -> Keeper:
    """The keeper of this process; a child of a prefork worker has its own."""
    with _keeper_lock:
        return _keeper_of(os.getpid())


def _once_postgresql_answers(change: Callable[[Session], Value]) -> Value:
    deadline = time.monotonic() + PATIENCE
    pause = 0.5
    while True:
        try:
            with db.session() as session, session.begin():
                return change(session)
        except db.AWAY as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("PostgreSQL is unavailable, trying again: %s", error)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def claim(task_id: UUID) -> Task | None:
    """Take a task for this attempt; return None if it is not to be had: done, cancelled, or in other hands."""
    mine = uuid4()
    # What is queued was due when it was published, whatever the clock says now.
    due = or_(Task.state == State.QUEUED, and_(Task.state == State.RETRYING, Task.due_at <= func.now()))
    taken = (
        update(Task)
        .where(Task.id == task_id, due)
        .values(
            state=State.RUNNING,
            claim=mine,
            lease_until=_lease_end(),
            attempt=Task.attempt + 1,
            started_at=func.coalesce(Task.started_at, func.now()),
            published_at=func.coalesce(Task.published_at, func.now()),
        )
    )

    def take(session: Session) -> Task | None:
        if task := session.scalars(taken.returning(Task)).one_or_none():
            return task
        # Taken already, by a try whose commit nobody has answered.
        return session.scalars(select(Task).where(Task.id == task_id, Task.claim == mine)).one_or_none()

    return _once_postgresql_answers(take)


def _results_of_parts(task: Task) -> list[dict[str, Any]] | None:
    if task.parts is None:
        return None
    with db.session() as session:
        results = session.scalars(select(Task.result).where(Task.parent_id == task.id).order_by(Task.part)).all()
    return [result or {} for result in results]


def _save_checkpoint(task: Task, checkpoint: dict[str, Any]) -> None:
    mine = update(Task).where(Task.id == task.id, Task.claim == task.claim)
    with db.session() as session, session.begin():
        if session.execute(mine.values(checkpoint=checkpoint).returning(Task.id)).one_or_none() is None:
            raise ClaimLostError(f"task {task.id}")


def _end(task: Task, values: dict[str, Any], effects: tuple[Callable[[Session], None], ...] = ()) -> None:
    """Change a task that this attempt holds, with all that follows from it.

    Raises:
        ClaimLostError: this attempt holds it no longer; nothing was changed.
        NotKeptError: PostgreSQL was away for `PATIENCE`.
    """
    held = update(Task).where(Task.id == task.id, Task.claim == task.claim, Task.state == State.RUNNING)
    released = held.values(claim=None, lease_until=None, **values).returning(Task.cancel_requested)

    def change(session: Session) -> None:
        cancelled = session.execute(released).scalar_one_or_none()
        if cancelled is None:
            raise ClaimLostError(f"task {task.id}")
        if cancelled and values["state"] in (State.WAITING, State.RETRYING):
            # Nothing is begun for a task that shall end, and nobody would tell what begins.
            ended = {"state": State.CANCELLED, "finished_at": func.now(), "parts": None, "parts_left": None}
            session.execute(update(Task).where(Task.id == task.id).values(ended))
            return
        for effect in effects:
            effect(session)
        if task.parent_id and values["state"] == State.SUCCEEDED:
            _part_done(session, task.parent_id)
        elif task.parent_id and values["state"] == State.FAILED:
            _part_failed(session, task, values["error"])

    try:
        _once_postgresql_answers(change)
    except db.AWAY as error:
        raise NotKeptError(f"task {task.id}") from error


def _part_done(session: Session, parent_id: UUID) -> None:
    parent = update(Task).where(Task.id == parent_id, Task.state == State.WAITING)
    left = session.execute(
        parent.values(parts_left=Task.parts_left - 1).returning(Task.parts_left)
    ).scalar_one_or_none()
    if left == 0:
        session.execute(parent.values(state=State.QUEUED, attempt=0, due_at=func.now(), published_at=None))


def _part_failed(session: Session, task: Task, error: str) -> None:
    parent = update(Task).where(Task.id == task.parent_id, Task.state == State.WAITING)
    session.execute(parent.values(state=State.FAILED, error=error, finished_at=func.now()))
    siblings = update(Task).where(Task.parent_id == task.parent_id)
    session.execute(siblings.where(Task.state == State.RUNNING).values(cancel_requested=True))
    waiting = siblings.where(Task.state.in_([State.QUEUED, State.RETRYING]))
    session.execute(waiting.values(state=State.CANCELLED, cancel_requested=True, finished_at=func.now()))


def _split(task: Task, parts: FanOut) -> None:
    kind = KINDS[parts.kind]
    rows = [
        Task(
            kind=kind.name,
            queue=kind.queue,
            arguments=arguments.model_dump(mode="json"),
            submitted_by=task.submitted_by,
            parent_id=task.id,
            part=number,
        )
        for number, arguments in enumerate(parts.arguments)
    ]
    if not rows:
        raise ValueError(f"{task.kind} has split itself into nothing")
    values = {"state": State.WAITING, "parts": len(rows), "parts_left": len(rows), "error": None}
    _end(task, values, (lambda session: session.add_all(rows),))


def _fail(task: Task, error: str) -> None:
    _end(task, {"state": State.FAILED, "error": error, "finished_at": func.now()})


def _again(task: Task, kind: Kind, error: str) -> None:
    pause = text(f"interval '{kind.backoff_after(task.attempt)} seconds'")
    _end(task, {"state": State.RETRYING, "error": error, "due_at": func.now() + pause, "published_at": None})


def _succeed(task: Task, context: TaskContext, result: BaseModel) -> None:
    values = {
        "state": State.SUCCEEDED,
        "result": result.model_dump(mode="json"),
        "error": None,
        "finished_at": func.now(),
    }
    _end(task, values, tuple(context.on_success))


def end_from_outside(error: BaseException | None) -> BaseException | None:
    """Return what has ended an attempt from outside, if an error was raised on the way out of that; else None."""
    while error is not None and not isinstance(error, ENDS):
        error = error.__context__
    return error


def is_hard_limit(error: BaseException) -> bool:
    """Tell whether Celery's hard time limit has ended an attempt, in a pool of greenlets. Others end the process."""
    # By its name: a pool of processes has no gevent, and shall not import it for that.
    return (type(error).__module__, type(error).__name__) == ("gevent.timeout", "Timeout")


@contextmanager
def _unmasked() -> Iterator[None]:
    """Let the end of an attempt be seen as what it is.

    It is raised wherever the attempt waits, so in the middle of a library too, which tidies up and may fail at that:
    SQLAlchemy raises a ProgrammingError in its place. Taken for the task's own error, that would fail the task.
    """
    try:
        yield
    except Exception as error:
        if end := end_from_outside(error):
            raise end from None
        raise


def _message(error: BaseException) -> str:
    if isinstance(error, SQLAlchemyError):
        # Its words are SQL and addresses, which are for the log.
        return "PostgreSQL was unavailable." if isinstance(error, db.AWAY) else "PostgreSQL refused a change."
    # NUL is the one character that PostgreSQL does not take.
    return (f"{error}".replace("\0", "") or type(error).__name__)[:2000]


def _attempt(task: Task, kind: Kind) -> None:
    if task.cancel_requested:
        _end(task, {"state": State.CANCELLED, "finished_at": func.now()})
        return
    if task.attempt > kind.max_attempts:
        _fail(task, f"Its worker was lost {kind.max_attempts} times.")
        return
    context = TaskContext(
        task.id,
        attempt=task.attempt,
        time_limit=_time_limit(kind),
        submitted_by=task.submitted_by,
        checkpoint=task.checkpoint,
        parts=_results_of_parts(task),
        save=partial(_save_checkpoint, task),
    )
    assert task.claim is not None  # noqa: S101
    keeper().add(task.claim, context)
    try:
        with _unmasked():
            outcome = kind.run(context, kind.arguments.model_validate(task.arguments))
            if isinstance(outcome, FanOut):
                _split(task, outcome)
            else:
                _succeed(task, context, outcome)
    except CancelledError:
        _end(task, {"state": State.CANCELLED, "finished_at": func.now()})
    except (TimeLimitError, SoftTimeLimitExceeded):
        _fail(task, f"It took longer than {_time_limit(kind)} seconds.")
    except (ClaimLostError, NotKeptError):
        raise
    except kind.retry_on as error:
        if task.attempt < kind.max_attempts:
            logger.warning("%s %s, attempt %s, comes again: %s", kind.name, task.id, task.attempt, error)
            _again(task, kind, _message(error))
        else:
            _fail(task, _message(error))
    except Exception as error:
        logger.exception("%s %s failed", kind.name, task.id)
        _fail(task, _message(error))
    except BaseException as error:
        if is_hard_limit(error):
            _fail(task, f"It took longer than {_time_limit(kind)} seconds, and did not end when it was told to.")
        raise
    finally:
        keeper().remove(task.claim)


def run(task_id: UUID) -> None:
    """Run a task, if it is to be had, to the end of one attempt."""
    task = claim(task_id)
    if task is None:
        logger.info("task %s is not to be had: done, cancelled, or in other hands", task_id)
        return
    try:
        _attempt(task, KINDS[task.kind])
    except ClaimLostError:
        logger.warning("task %s was given to another worker meanwhile; this attempt has no effect", task_id)


def _time_limit(kind: Kind) -> int:
    return min(kind.time_limit, get_settings().soft_time_limit)


def _register(kind: Kind) -> None:
    # The soft limit reaches a task that never asks; only the prefork pool has it. The hard one is the last resort.
    limit = _time_limit(kind)

    @app.task(  # type: ignore[untyped-decorator]
        name=celery_name(kind.name), bind=True, ignore_result=True, soft_time_limit=limit + 10, time_limit=limit + 30
    )
    def message(self: Any) -> None:  # noqa: ANN401
        try:
            task_id = UUID(self.request.id)
        except ValueError:
            logger.warning("a message without a task was dropped: %.100s", self.request.id)
            return
        try:
            run(task_id)
        except (*db.AWAY, NotKeptError) as error:
            # Acknowledged, the message would be gone, and the task perhaps not even begun.
            raise Reject(error, requeue=True) from error


for _kind in KINDS.values():
    _register(_kind)
