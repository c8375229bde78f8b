"""Accepting tasks, cancelling them, and their way to the broker."""

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from kombu import Connection
from kombu.exceptions import OperationalError
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from fba_app import db, errors
from fba_app.celery import app as celery_app
from fba_app.problems import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from fba_app.settings import get_settings
from fba_app.tasks import intake, run_task, service
from fba_app.tasks.models import LEASE, State, Task
from fba_app.tasks.registry import KINDS
from fba_app.tasks.relay import Relay, requeue_lost, requeue_unheard
from fba_app.tasks.requests import AnyTaskRequest
from fba_app.users.models import User
from fba_app.users.principal import Permission, Principal

Value = TypeVar("Value")

CONNECTIONS = f"test_{secrets.token_hex(4)}"
"""What these tests' own connections call themselves in PostgreSQL."""


def request(duration: int = 1) -> AnyTaskRequest:
    return AnyTaskRequest(kind="sleep", arguments=KINDS["sleep"].arguments.model_validate({"duration": duration}))


@pytest.fixture
def user() -> Principal:
    """A user who may submit, and no more."""
    user = User(id=uuid4(), username=f"user-{secrets.token_hex(4)}", password_hash="none")
    with db.session() as session, session.begin():
        session.add(user)
    return Principal(user.id, user.username, frozenset({Permission.TASKS_SUBMIT}), "session", "127.0.0.1")


@pytest.fixture(autouse=True)
def _broker_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relay, "available", True)


def ask(call: Callable[[AsyncSession], Awaitable[Value]]) -> Value:
    """Run a call as a request would, with a session of its own."""

    async def run() -> Value:
        async with engine_of_this_loop() as engine, AsyncSession(engine, expire_on_commit=False) as session:
            return await call(session)

    return asyncio.run(run())


@asynccontextmanager
async def engine_of_this_loop() -> AsyncIterator[AsyncEngine]:
    """The server's engine, whose connections belong to the event loop that a test has for itself."""
    url, connect_args = db.url(get_settings()), db.request_connect_args() | {"application_name": CONNECTIONS}
    engine = create_async_engine(url, pool_size=5, max_overflow=0, pool_timeout=5, connect_args=connect_args)
    try:
        with patch.object(db, "async_engine", lambda: engine):
            yield engine
    finally:
        await engine.dispose()


def rows() -> int:
    with db.session() as session:
        return session.scalars(select(func.count()).select_from(Task)).one()


def change(task_id: UUID, **values: Any) -> None:
    with db.session() as session, session.begin():
        session.execute(update(Task).where(Task.id == task_id).values(**values))


def test_the_same_key_gives_the_same_task(user: Principal) -> None:
    first, new = ask(lambda session: service.submit(session, user, request(), "key"))
    assert new
    again, new = ask(lambda session: service.submit(session, user, request(), "key"))
    assert (again.id, new) == (first.id, False)
    other, new = ask(lambda session: service.submit(session, user, request()))
    assert new
    assert other.id != first.id


def test_the_same_key_at_the_same_time_gives_one_task(user: Principal) -> None:
    async def both() -> list[tuple[Task, bool]]:
        async with engine_of_this_loop() as engine:

            async def one() -> tuple[Task, bool]:
                async with AsyncSession(engine, expire_on_commit=False) as session:
                    return await service.submit(session, user, request(), "together")

            return await asyncio.gather(*(one() for _ in range(8)))

    answers = asyncio.run(both())
    assert len({task.id for task, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1


def test_an_accepted_task_is_as_in_the_table(user: Principal) -> None:
    task, _ = ask(lambda session: service.submit(session, user, request(), "whole"))
    added, _ = ask(lambda session: added_and_committed(session, user))
    for each in (task, added):
        with db.session() as session:
            written = session.get_one(Task, each.id)
        for column in Task.__table__.columns:
            assert getattr(each, column.name) == getattr(written, column.name), column.name


async def added_and_committed(session: AsyncSession, user: Principal) -> tuple[Task, bool]:
    added = await service.add(session, KINDS["sleep"], {"duration": 1}, submitted_by=user.id, idempotency_key="added")
    await session.commit()
    return added


def test_the_next_task_is_written_after_its_connection_was_lost(user: Principal) -> None:
    def row() -> dict[str, Any]:
        own = {"id": uuid4(), "submitted_by": user.id, "idempotency_key": None}
        return {"kind": "sleep", "queue": "io", "state": State.QUEUED, "arguments": {}, **own}

    async def check() -> None:
        async with engine_of_this_loop():
            table = intake.Table()
            assert len(await table.write([row(), row()])) == 2
            with db.session() as session, session.begin():
                end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = :name"
                assert session.scalars(text(end), {"name": CONNECTIONS}).one() == 1
            with pytest.raises(db.AWAY):
                await table.write([row()])
            assert len(await table.write([row()])) == 1
            await table.release()

    asyncio.run(check())


def test_many_at_the_same_time_share_transactions_and_few_connections(user: Principal) -> None:
    """Each has a session that has asked something already, as a request has; there are five connections."""

    async def many() -> list[Task | BaseException]:
        async with engine_of_this_loop() as engine:

            async def one(number: int) -> Task:
                async with AsyncSession(engine, expire_on_commit=False) as session:
                    await session.scalar(select(User.id).where(User.id == user.id))
                    # PostgreSQL has no such character in JSON
                    arguments = {"number": number, "text": "\0" if number == 7 else "good"}
                    return (await service.accept(session, KINDS["sleep"], arguments, submitted_by=user.id))[0]

            return await asyncio.gather(*(one(number) for number in range(300)), return_exceptions=True)

    answers = asyncio.run(many())
    assert isinstance(answers.pop(7), DataError)
    with db.session() as session:
        number = Task.arguments["number"].as_integer().label("number")
        found = session.execute(select(Task.id, number).where(Task.submitted_by == user.id))
        numbers = {row.id: row.number for row in found}
    assert sorted(numbers.values()) == [number for number in range(300) if number != 7]
    assert {task.id: task.arguments["number"] for task in answers if isinstance(task, Task)} == numbers


def test_who_waits_for_a_lock_is_refused_and_holds_up_nobody(user: Principal) -> None:
    other = User(id=uuid4(), username=f"user-{secrets.token_hex(4)}", password_hash="none")
    with db.session() as session, session.begin():
        session.add(other)

    async def both() -> list[tuple[Task, bool] | BaseException]:
        async with engine_of_this_loop() as engine:

            async def one(submitted_by: UUID) -> tuple[Task, bool]:
                async with AsyncSession(engine, expire_on_commit=False) as session:
                    return await service.accept(session, KINDS["sleep"], {"duration": 0}, submitted_by=submitted_by)

            return await asyncio.gather(*map(one, (user.id, other.id)), return_exceptions=True)

    with db.session() as session, session.begin():
        # As long as a user is being deleted, nobody knows whether there will be one to refer to
        session.execute(select(User.id).where(User.id == user.id).with_for_update())
        locked, free = asyncio.run(both())
    assert isinstance(locked, BaseException)
    assert db.waited_for_a_lock(locked)
    assert isinstance(free, tuple)
    assert free[1]


def test_a_key_is_not_for_two_different_tasks_but_two_users_may_have_the_same(user: Principal) -> None:
    ask(lambda session: service.submit(session, user, request(1), "mine"))
    with pytest.raises(ConflictError):
        ask(lambda session: service.submit(session, user, request(2), "mine"))
    nobody = Principal(uuid4(), "other", user.permissions, "session", "127.0.0.1")
    with db.session() as session, session.begin():
        session.add(User(id=nobody.id, username=f"other-{secrets.token_hex(4)}", password_hash="none"))
    assert ask(lambda session: service.submit(session, nobody, request(2), "mine"))[1]


def test_nothing_is_written_while_the_broker_is_known_to_be_away(
    user: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relay, "available", False)
    before = rows()
    with pytest.raises(UnavailableError):
        ask(lambda session: service.submit(session, user, request()))
    assert rows() == before


def test_a_task_is_seen_by_its_user_and_by_who_may_see_all(user: Principal) -> None:
    task, _ = ask(lambda session: service.submit(session, user, request()))
    stranger = Principal(uuid4(), "stranger", user.permissions, "session", "127.0.0.1")
    with pytest.raises(NotFoundError):
        ask(lambda session: service.get(session, stranger, task.id))
    with pytest.raises(ForbiddenError):
        service.visible(stranger, everyone=True)
    manager = Principal(uuid4(), "manager", user.permissions | {Permission.TASKS_MANAGE}, "session", "127.0.0.1")
    assert ask(lambda session: service.get(session, manager, task.id)).id == task.id


def cancel(user: Principal, task_id: UUID) -> Task:
    async def call(session: AsyncSession) -> Task:
        task = await service.get(session, user, task_id)
        await service.cancel(session, task)
        return task

    return ask(call)


def test_what_waits_is_cancelled_at_once_and_what_runs_is_told(user: Principal) -> None:
    task, _ = ask(lambda session: service.submit(session, user, request()))
    cancelled = cancel(user, task.id)
    assert cancelled.state == State.CANCELLED
    assert cancelled.finished_at is not None
    with pytest.raises(ConflictError):
        cancel(user, task.id)
    running, _ = ask(lambda session: service.submit(session, user, request()))
    change(running.id, state=State.RUNNING)
    told = cancel(user, running.id)
    assert (told.state, told.cancel_requested) == (State.RUNNING, True)


def test_the_parts_are_cancelled_with_the_whole(user: Principal) -> None:
    task, _ = ask(lambda session: service.submit(session, user, request()))
    change(task.id, state=State.WAITING, parts=2, parts_left=2)
    states = (State.QUEUED, State.RUNNING, State.SUCCEEDED)
    with db.session() as session, session.begin():
        session.add_all(
            Task(kind="sleep", queue="io", arguments={}, parent_id=task.id, part=number, state=state)
            for number, state in enumerate(states)
        )
    assert cancel(user, task.id).state == State.CANCELLED
    with db.session() as session:
        parts = session.scalars(select(Task).where(Task.parent_id == task.id).order_by(Task.part)).all()
    assert [(part.state, part.cancel_requested) for part in parts] == [
        (State.CANCELLED, True),
        (State.RUNNING, True),
        (State.SUCCEEDED, False),
    ]


@pytest.fixture
def queue() -> Iterator[str]:
    """A queue of its own, so that no worker takes what the test looks for."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    with celery_app.connection_for_write() as connection:
        connection.default_channel.queue_delete(name)


def messages(connection: Connection, queue: str) -> list[str]:
    """Take all task ids out of a queue."""
    found = []
    while message := connection.default_channel.basic_get(queue, no_ack=True):
        found.append(message.headers["id"])
    return found


@pytest.fixture
def own_relay() -> Iterator[Relay]:
    """A relay that looks when told."""
    relay = Relay()
    yield relay
    relay._disconnect()


@pytest.fixture(autouse=True)
def _nothing_else_is_due() -> None:
    with db.session() as session, session.begin():
        session.execute(update(Task).values(published_at=func.now()))


def due(queue: str, **values: Any) -> str:
    task = Task(**({"id": uuid4(), "kind": "sleep", "queue": queue, "arguments": {"duration": 0}} | values))
    with db.session() as session, session.begin():
        session.add(task)
    return str(task.id)


def still_due(queue: str) -> set[str]:
    """The tasks of a queue that are not published."""
    with db.session() as session:
        return set(map(str, session.scalars(select(Task.id).where(Task.queue == queue, Task.published_at.is_(None)))))


def test_what_is_due_is_published_once(queue: str, own_relay: Relay) -> None:
    wanted = {due(queue) for _ in range(3)} | {due(queue, state=State.RETRYING)}
    due(queue, due_at=func.now() + text("interval '1 minute'"))
    due(queue, state=State.CANCELLED)
    own_relay._look()
    own_relay._look()
    with celery_app.connection_for_write() as connection:
        found = messages(connection, queue)
    assert len(found) == 4
    assert set(found) == wanted


def test_what_the_broker_refuses_stays_due(queue: str, own_relay: Relay) -> None:
    full = celery_app.amqp.queues[queue]
    full.queue_arguments = {**full.queue_arguments, "x-max-length": 1, "x-overflow": "reject-publish"}
    wanted: set[str] = set()
    # A quorum queue takes some more than its limit, all of those that come at once for instance.
    while len(wanted) < 50 and not still_due(queue):
        wanted.add(due(queue))
        own_relay._look()
    refused = still_due(queue)
    assert len(refused) == 1
    with celery_app.connection_for_write() as connection:
        found = messages(connection, queue)
        assert set(found) == wanted - refused
        # Whoever publishes is told a moment later that there is room again.
        deadline = time.monotonic() + 10
        while still_due(queue) and time.monotonic() < deadline:
            own_relay._look()
        found += messages(connection, queue)
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_two_relays_share_what_is_due(queue: str) -> None:
    wanted = {due(queue) for _ in range(250)}
    relays = [Relay(), Relay()]

    async def both() -> None:
        await asyncio.gather(*(asyncio.to_thread(each._look) for each in relays))

    asyncio.run(both())
    for each in relays:
        each._disconnect()
    with celery_app.connection_for_write() as connection:
        found = messages(connection, queue)
    assert len(found) == 250
    assert set(found) == wanted


def test_a_task_whose_message_is_lost_is_published_again(
    queue: str, own_relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = due(queue)
    own_relay._look()
    with celery_app.connection_for_write() as connection:
        assert messages(connection, queue) == [wanted], "and with that it is lost"
        monkeypatch.setattr("fba_app.tasks.relay.IO_QUEUE", queue)
        own_relay._look()
        assert messages(connection, queue) == [], "not at once: a worker may have it"
        change(UUID(wanted), published_at=func.now() - text("interval '61 seconds'"))
        own_relay._look()
        change(UUID(wanted), published_at=func.now() - text("interval '61 seconds'"))
        own_relay._look()
        assert messages(connection, queue) == [wanted], "once: the second time the queue was not empty"


@pytest.mark.parametrize("requeue", [lambda session: requeue_unheard(session, "io"), requeue_lost])
def test_what_is_lost_is_looked_for_once_whatever_the_plan(requeue: Callable[[Session], int]) -> None:
    """With the plan that PostgreSQL makes while the table is empty: what it keeps it for, is not empty any more."""
    rows_read = text(
        "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
        " WHERE relname = 'tasks' AND schemaname = current_schema"
    )
    many = [
        {"id": uuid4(), "kind": "sleep", "queue": "io", "state": State.SUCCEEDED, "arguments": {}} for _ in range(200)
    ]
    with db.session() as session:
        session.execute(insert(Task), many)
        for plan in ("hashjoin", "mergejoin", "material", "indexscan", "bitmapscan", "hashagg", "sort"):
            session.execute(text(f"SET LOCAL enable_{plan} = off"))
        before = session.scalars(rows_read).one()
        requeue(session)
        read = session.scalars(rows_read).one() - before
        rows = session.scalars(select(func.count()).select_from(Task)).one()
        session.rollback()
    assert 0 < read <= 3 * rows


def test_after_an_outage_a_running_task_has_the_time_of_a_lease_to_say_so(own_relay: Relay) -> None:
    lapsed = {
        "state": State.RUNNING,
        "lease_until": func.now() - text("interval '1 second'"),
        "published_at": func.now(),
    }
    task_id = UUID(due("io", **lapsed))

    def state() -> str:
        with db.session() as session:
            return session.scalars(select(Task.state).where(Task.id == task_id)).one()

    own_relay._blind = time.monotonic() - LEASE + 5
    own_relay._look()
    assert state() == State.RUNNING
    own_relay._blind = time.monotonic() - LEASE - 1
    change(task_id, queue="nowhere", due_at=func.now() + text("interval '1 hour'"))
    own_relay._look()
    assert state() == State.QUEUED


def test_only_so_many_tasks_can_be_submitted_without_a_password() -> None:
    settings = get_settings().model_copy(update={"run_task_max_open": 2})
    with db.session() as session, session.begin():
        session.execute(update(Task).values(finished_at=func.now()))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await db.async_engine().dispose()

    app = FastAPI(lifespan=lifespan)
    errors.install(app)
    app.include_router(run_task.router(settings))
    with TestClient(app) as client:
        assert [client.get("/run-task/").status_code for _ in range(3)] == [200, 200, 429]
        with db.session() as session, session.begin():
            session.execute(update(Task).values(finished_at=func.now()))
        assert client.get("/run-task/").status_code == 200


def test_a_task_waits_for_a_broker_that_is_away(queue: str, own_relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = due(queue)
    with monkeypatch.context() as away:
        away.setattr(celery_app.conf, "broker_write_url", "amqp://nobody@127.0.0.1:1//")
        with pytest.raises(OperationalError, match="refused"):
            own_relay._look()
    own_relay._look()
    with celery_app.connection_for_write() as connection:
        assert messages(connection, queue) == [wanted]


def test_the_relay_goes_on_after_any_error(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    errors = iter([OSError("the broker"), RuntimeError("a bug")])

    def look(_: Relay) -> None:
        if error := next(errors, None):
            raise error
        looked.set()

    monkeypatch.setattr(Relay, "_look", look)
    monkeypatch.setattr("fba_app.tasks.relay.INTERVAL", 0.01)
    own = Relay()
    own.start()
    assert looked.wait(10)
    own.stop()
