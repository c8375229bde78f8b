"""Tasks from the row to the result: claimed, run, ended, in PostgreSQL itself."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any
from uuid import UUID, uuid4

import gevent
import pytest
from celery.exceptions import Reject
from greenlet import GreenletExit
from pydantic import BaseModel
from sqlalchemy import event, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from fba_app import db
from fba_app.celery import app
from fba_app.health.models import Heartbeat
from fba_app.tasks import runner
from fba_app.tasks.context import TaskContext
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import IO_QUEUE, KINDS, FanOut, kind
from fba_app.tasks.relay import requeue_lost


class Number(BaseModel):
    n: int = 0


class TemporaryError(Exception):
    pass


Run = Callable[[TaskContext, Number], BaseModel | FanOut]
Define = Callable[..., None]


@pytest.fixture
def define() -> Iterator[Define]:
    """Make a kind of a function, by `define(function, **options)`: the kind `test`, or another one."""
    names = []

    def define(run: Run, name: str = "test", **options: Any) -> None:
        def typed(context: TaskContext, arguments: Number) -> BaseModel | FanOut:
            return run(context, arguments)

        defaults: dict[str, Any] = {"queue": IO_QUEUE, "time_limit": 60, "retry_on": (TemporaryError,)}
        kind(name, **(defaults | options))(typed)
        names.append(name)

    yield define
    for name in names:
        del KINDS[name]


def add(**values: Any) -> UUID:
    task = Task(**({"id": uuid4(), "kind": "test", "queue": IO_QUEUE, "arguments": {"n": 1}} | values))
    with db.session() as session, session.begin():
        session.add(task)
    return task.id


def get(task_id: UUID) -> Task:
    with db.session() as session:
        return session.scalars(select(Task).where(Task.id == task_id)).one()


def change(task_id: UUID, **values: Any) -> None:
    with db.session() as session, session.begin():
        session.execute(update(Task).where(Task.id == task_id).values(**values))


def test_a_task_runs_and_keeps_its_result(define: Define) -> None:
    define(lambda _, arguments: Number(n=arguments.n + 1))
    task_id = add()
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.result, task.attempt, task.error) == (State.SUCCEEDED, {"n": 2}, 1, None)
    assert task.claim is None
    assert task.finished_at is not None
    assert task.started_at is not None
    assert task.finished_at >= task.started_at


def test_a_message_that_comes_twice_runs_the_task_once(define: Define) -> None:
    calls = []
    entered = threading.Barrier(2, timeout=10)

    def run(_: TaskContext, arguments: Number) -> Number:
        calls.append(arguments)
        return arguments

    define(run)
    task_id = add()

    def deliver() -> None:
        entered.wait()
        runner.run(task_id)

    with ThreadPoolExecutor(2) as pool:
        for delivery in [pool.submit(deliver) for _ in range(2)]:
            delivery.result()
    runner.run(task_id)
    assert len(calls) == 1


def test_a_temporary_error_comes_again_after_its_backoff(define: Define) -> None:
    def run(context: TaskContext, arguments: Number) -> Number:
        if context.attempt == 1:
            context.save_checkpoint({"seen": 1})
            raise TemporaryError("not now")
        return Number(n=context.checkpoint["seen"] + arguments.n)

    define(run, backoff=7)
    task_id = add(published_at=func.now())
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.error, task.published_at) == (State.RETRYING, "not now", None)
    with db.session() as session:
        assert (
            6
            < session.scalars(
                text("SELECT extract(epoch FROM due_at - now()) FROM tasks WHERE id = :id").bindparams(id=task_id)
            ).one()
            <= 7
        )
    runner.run(task_id)
    assert get(task_id).attempt == 1, "not before it is due"
    change(task_id, due_at=func.now())
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.result, task.attempt, task.error) == (State.SUCCEEDED, {"n": 2}, 2, None)


def test_a_temporary_error_is_final_after_the_last_attempt(define: Define) -> None:
    def run(*_: object) -> Number:
        raise TemporaryError("never")

    define(run, max_attempts=2, backoff=0)
    task_id = add()
    runner.run(task_id)
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.error, task.attempt) == (State.FAILED, "never", 2)


def test_what_postgresql_says_is_for_the_log_alone(define: Define, caplog: pytest.LogCaptureFixture) -> None:
    # Not written here, where a traceback would show it.
    secret = uuid4().hex

    def run(*_: object) -> Number:
        with db.session() as session:
            session.execute(text("SELECT :secret FROM nowhere"), {"secret": secret})
        return Number()

    define(run)
    task_id = add()
    runner.run(task_id)
    assert get(task_id).error == "PostgreSQL refused a change."
    assert "nowhere" in caplog.text
    assert secret not in caplog.text


@pytest.mark.parametrize("error", [ValueError("wrong\0"), KeyError("k"), RecursionError("deep"), MemoryError()])
def test_any_other_error_is_final_at_once(define: Define, error: Exception) -> None:
    def run(*_: object) -> Number:
        raise error

    define(run)
    task_id = add()
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.attempt) == (State.FAILED, 1)
    assert task.error


def test_arguments_that_the_kind_does_not_take_fail_the_task(define: Define) -> None:
    define(lambda _, arguments: arguments)
    task_id = add(arguments={"n": "many"})
    runner.run(task_id)
    assert get(task_id).state == State.FAILED


def test_a_waiting_task_is_woken_by_its_cancellation(define: Define) -> None:
    started = threading.Event()

    def run(context: TaskContext, arguments: Number) -> Number:
        started.set()
        context.sleep(50)
        return arguments

    define(run)
    task_id = add()
    thread = threading.Thread(target=runner.run, args=[task_id])
    thread.start()
    assert started.wait(10)
    change(task_id, cancel_requested=True)
    thread.join(10)
    task = get(task_id)
    assert (task.state, task.result) == (State.CANCELLED, None)


def test_a_cancelled_task_is_not_begun_again(define: Define) -> None:
    def run(context: TaskContext, _: Number) -> BaseModel | FanOut:
        change(context.id, cancel_requested=True)
        if context.attempt == 1 and context.parts is None and context.checkpoint == {"fails": True}:
            raise TemporaryError("and would come again")
        return FanOut("test", [Number()])

    define(run)
    for checkpoint in ({"fails": True}, {}):
        task_id = add(checkpoint=checkpoint)
        runner.run(task_id)
        task = get(task_id)
        assert (task.state, task.parts) == (State.CANCELLED, None)
        assert task.finished_at is not None
        assert children(task_id) == []


def test_a_task_that_was_cancelled_while_its_worker_was_lost_is_not_run(define: Define) -> None:
    calls = []

    def run(_: TaskContext, arguments: Number) -> Number:
        calls.append(arguments)
        return arguments

    define(run)
    task_id = add(cancel_requested=True)
    runner.run(task_id)
    assert get(task_id).state == State.CANCELLED
    assert calls == []


def test_a_task_that_takes_too_long_fails(define: Define) -> None:
    def run(context: TaskContext, arguments: Number) -> Number:
        context.sleep(50)
        return arguments

    define(run, time_limit=1)
    task_id = add()
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.error) == (State.FAILED, "It took longer than 1 seconds.")


def lose(session: Session) -> None:
    session.execute(
        update(Task).where(Task.state == State.RUNNING).values(lease_until=func.now() - text("interval '1 second'"))
    )


def test_a_task_whose_worker_is_lost_is_queued_again_until_it_has_lost_too_many(define: Define) -> None:
    define(lambda _, arguments: arguments, max_attempts=2)
    task_id = add(published_at=func.now())
    for attempt in (1, 2):
        taken = runner.claim(task_id)
        assert taken is not None
        assert taken.attempt == attempt
        with db.session() as session, session.begin():
            assert requeue_lost(session) == 0, "while the lease lasts"
            lose(session)
            assert requeue_lost(session) == 1
        task = get(task_id)
        assert (task.state, task.published_at) == (State.QUEUED, None)
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.error) == (State.FAILED, "Its worker was lost 2 times.")


def test_an_attempt_that_is_ended_from_outside_fails_nothing(define: Define) -> None:
    """As a greenlet is when its worker loses the broker: here in a library, which then complains of its own."""

    def run(context: TaskContext, arguments: Number) -> Number:
        if context.attempt == 1:
            try:
                raise GreenletExit
            finally:
                with db.session() as session:
                    session.execute(text("SELECT no_such_column"))
        return arguments

    define(run, max_attempts=2)
    task_id = add()
    with pytest.raises(GreenletExit):
        runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.error, task.attempt) == (State.RUNNING, None, 1)
    # As of a worker that was lost
    change(task_id, lease_until=func.now())
    with db.session() as session, session.begin():
        assert requeue_lost(session) >= 1
    runner.run(task_id)
    assert get(task_id).state == State.SUCCEEDED


def test_a_lease_is_renewed_while_the_task_runs(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    started = threading.Event()

    def run(_: TaskContext, arguments: Number) -> Number:
        started.set()
        assert go.wait(20)
        return arguments

    define(run)
    task_id = add()
    thread = threading.Thread(target=runner.run, args=[task_id])
    thread.start()
    assert started.wait(10)
    change(task_id, lease_until=func.now() + text("interval '5 seconds'"))
    before = get(task_id).lease_until
    for _ in range(100):
        if get(task_id).lease_until != before:
            break
        threading.Event().wait(0.1)
    after = get(task_id).lease_until
    go.set()
    thread.join(10)
    assert before is not None
    assert after is not None
    assert after > before
    assert get(task_id).state == State.SUCCEEDED


def beat(name: str) -> Callable[[Session], None]:
    return lambda session: session.add(Heartbeat(name=name, beat_at=func.now()))


def beats(name: str) -> int:
    with db.session() as session:
        return session.scalars(select(func.count()).where(Heartbeat.name == name)).one()


def test_an_attempt_that_has_lost_the_task_has_no_effect(define: Define) -> None:
    def run(context: TaskContext, arguments: Number) -> Number:
        context.on_success.append(beat("late"))
        change(context.id, claim=uuid4())
        return arguments

    define(run)
    task_id = add()
    runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.result) == (State.RUNNING, None)
    assert beats("late") == 0


def test_an_effect_is_committed_with_the_success(define: Define) -> None:
    def run(context: TaskContext, arguments: Number) -> Number:
        context.on_success.append(beat(f"effect-{arguments.n}"))
        return arguments

    define(run)
    runner.run(add(arguments={"n": 3}))
    assert beats("effect-3") == 1


def test_the_end_of_a_task_waits_for_postgresql(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([True, True, False])

    def effect(_: Session) -> None:
        if next(failures):
            raise OperationalError("COMMIT", {}, Exception("the server went away"))

    def run(context: TaskContext, arguments: Number) -> Number:
        context.on_success.append(effect)
        return arguments

    define(run)
    task_id = add()
    runner.run(task_id)
    assert get(task_id).state == State.SUCCEEDED


class Away:
    """A PostgreSQL that is away for so many questions."""

    def __init__(self, times: float) -> None:
        self.times = times
        self.session = db.session

    def __call__(self) -> Session:
        self.times -= 1
        if self.times >= 0:
            raise OperationalError("BEGIN", {}, Exception("the server is away"))
        return self.session()


def test_a_message_waits_for_postgresql_before_it_is_taken(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    define(lambda _, arguments: arguments)
    task_id = add()
    monkeypatch.setattr(db, "session", Away(2))
    runner.run(task_id)
    assert get(task_id).state == State.SUCCEEDED


def test_a_message_goes_back_to_the_broker_when_postgresql_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "session", Away(inf))
    monkeypatch.setattr(runner, "PATIENCE", 0.0)
    message = app.tasks["fba_app.sleep"]
    message.push_request(id=str(uuid4()))
    try:
        with pytest.raises(Reject) as rejected:
            message()
    finally:
        message.pop_request()
    assert rejected.value.requeue


def test_what_postgresql_cannot_be_told_is_run_again_and_has_not_failed(
    define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = add()
    with monkeypatch.context() as away:

        def run(_: TaskContext, arguments: Number) -> Number:
            away.setattr(db, "session", Away(inf))
            return arguments

        define(run)
        away.setattr(runner, "PATIENCE", 0.0)
        with pytest.raises(runner.NotKeptError):
            runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.error, task.attempt) == (State.RUNNING, None, 1)


def test_a_task_that_its_hard_limit_ends_has_failed_and_does_not_come_again(define: Define) -> None:
    def run(*_: object) -> BaseModel:
        raise gevent.Timeout(1)

    define(run)
    task_id = add()
    with pytest.raises(gevent.Timeout):
        runner.run(task_id)
    task = get(task_id)
    assert (task.state, task.attempt) == (State.FAILED, 1)
    assert "did not end when it was told to" in (task.error or "")


def test_a_claim_whose_commit_was_not_answered_is_the_same_attempt(
    define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(lambda _, arguments: arguments)
    task_id = add()

    class Unanswered:
        """Commits, and then does as if the connection had gone."""

        def __init__(self) -> None:
            self.times = 0
            self.session = db.session

        def __call__(self) -> Session:
            session = self.session()
            self.times += 1
            if self.times == 1:

                def lost(_: Session) -> None:
                    raise OperationalError("COMMIT", {}, Exception("the connection is lost"))

                event.listen(session, "after_commit", lost)
            return session

    with monkeypatch.context() as lost:
        lost.setattr(db, "session", Unanswered())
        task = runner.claim(task_id)
    assert task
    assert (task.state, task.attempt) == (State.RUNNING, 1)


def test_a_frozen_worker_holds_up_nobody_elses_task() -> None:
    frozen, lost = add(), add()
    lapsed = {"state": State.RUNNING, "lease_until": func.now() - text("interval '1 second'")}
    for task_id in (frozen, lost):
        change(task_id, **lapsed)
    with db.session() as session, session.begin():
        session.execute(select(Task.id).where(Task.id == frozen).with_for_update())
        with db.session() as other, other.begin():
            requeue_lost(other)
        assert get(lost).state == State.QUEUED
    assert get(frozen).state == State.RUNNING


def children(parent: UUID) -> list[Task]:
    with db.session() as session:
        return list(session.scalars(select(Task).where(Task.parent_id == parent).order_by(Task.part)).all())


@pytest.fixture
def split(define: Define) -> UUID:
    """A task that has split itself into twenty parts; part 7 fails if it is asked for a negative number."""

    def run(context: TaskContext, arguments: Number) -> BaseModel | FanOut:
        if context.parts is None:
            return FanOut("test_part", [Number(n=arguments.n * n) for n in range(20)])
        return Number(n=sum(part["n"] for part in context.parts))

    def part(_: TaskContext, arguments: Number) -> Number:
        if arguments.n == -7:
            raise ValueError("part seven")
        return arguments

    define(run)
    define(part, "test_part", public=False)
    return add(arguments={"n": 1})


def test_parts_are_counted_in_postgresql_and_joined_once(split: UUID) -> None:
    runner.run(split)
    task = get(split)
    assert (task.state, task.parts, task.parts_left) == (State.WAITING, 20, 20)
    runner.run(split)
    assert get(split).state == State.WAITING, "a second message does not split it again"
    parts = children(split)
    assert [part.part for part in parts] == list(range(20))
    with ThreadPoolExecutor(5) as pool:
        # Each message twice, as a broker's restart may do
        list(pool.map(runner.run, [part.id for part in parts] * 2))
    task = get(split)
    assert (task.state, task.parts_left, task.published_at) == (State.QUEUED, 0, None)
    runner.run(split)
    task = get(split)
    assert (task.state, task.result) == (State.SUCCEEDED, {"n": 190})


def test_a_failed_part_fails_the_whole_and_ends_the_others(split: UUID) -> None:
    change(split, arguments={"n": -1})
    runner.run(split)
    parts = children(split)
    runner.run(parts[0].id)
    runner.run(parts[7].id)
    task = get(split)
    assert (task.state, task.error) == (State.FAILED, "part seven")
    runner.run(parts[9].id)
    states = [part.state for part in children(split)]
    assert states == [State.SUCCEEDED, *[State.CANCELLED] * 6, State.FAILED, *[State.CANCELLED] * 12]
