"""Throwing away what is old, and signs of life, on real services."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import NullPool, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fba_app import cache, db, maintenance
from fba_app.audit.models import AuditEntry
from fba_app.health import heartbeats
from fba_app.health.models import Heartbeat
from fba_app.settings import get_settings
from fba_app.tasks.models import State, Task

OLD = timedelta(days=get_settings().task_retention_days, minutes=1)
NOT_SO_OLD = timedelta(days=get_settings().task_retention_days, minutes=-1)


def add(age: timedelta = OLD, *, state: State = State.SUCCEEDED, **values: Any) -> UUID:
    at = datetime.now(UTC) - age
    task = Task(
        id=uuid4(), kind="sleep", queue="io", arguments={}, state=state, created_at=at,
        finished_at=None if state in (State.QUEUED, State.WAITING) else at, **values,
    )  # fmt: skip
    with db.session() as session, session.begin():
        session.add(task)
    return task.id


def left(*ids: UUID) -> list[UUID]:
    with db.session() as session:
        found = set(session.scalars(select(Task.id).where(Task.id.in_(ids))))
    return [each for each in ids if each in found]


def test_tasks_that_were_done_long_ago_are_deleted() -> None:
    old = [add(state=state) for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)]
    kept = [add(NOT_SO_OLD), add(state=State.QUEUED)]
    assert maintenance.delete_tasks() == 3
    assert left(*old, *kept) == kept
    assert maintenance.delete_tasks() == 0


def test_parts_go_with_their_whole_and_not_before() -> None:
    done, waiting = add(), add(state=State.WAITING)
    parts = [add(parent_id=done, part=number) for number in range(3)]
    needed = add(parent_id=waiting, part=0)
    assert maintenance.delete_tasks() == 1
    assert left(done, *parts, waiting, needed) == [waiting, needed]


def test_many_are_deleted_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "BATCH", 2)
    ids = [add() for _ in range(5)]
    assert maintenance.delete_tasks() == 5
    assert left(*ids) == []


def test_old_lines_of_the_audit_log_are_deleted() -> None:
    limit = datetime.now(UTC) - timedelta(days=get_settings().audit_retention_days)
    old, kept = uuid4(), uuid4()
    with db.session() as session, session.begin():
        session.add(AuditEntry(id=old, action="test", created_at=limit - timedelta(minutes=1)))
        session.add(AuditEntry(id=kept, action="test", created_at=limit + timedelta(minutes=1)))
    assert maintenance.delete_audit_entries() == 1
    with db.session() as session:
        assert session.get(AuditEntry, old) is None
        assert session.get(AuditEntry, kept) is not None


def test_sessions_that_have_ended_by_themselves_leave_the_lists() -> None:
    client, now = cache.sync_client(), int(time.time())
    client.zadd("sessions:one", {"ended": now - 1, "alive": now + 60})
    client.zadd("sessions:two", {"ended": now - 1000})
    client.set("session:alive", "1")
    assert maintenance.delete_session_entries() == 2
    assert client.zrange("sessions:one", 0, -1) == ["alive"]
    assert not client.exists("sessions:two")
    assert client.get("session:alive") == "1"
    client.delete("sessions:one", "session:alive")


def test_the_whole_cleanup_runs(caplog: pytest.LogCaptureFixture) -> None:
    old = add()
    maintenance.cleanup()
    assert left(old) == []
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def ages() -> dict[str, float]:
    async def ask() -> dict[str, float]:
        engine = create_async_engine(db.url(get_settings()), poolclass=NullPool)
        async with AsyncSession(engine) as session:
            return await heartbeats.ages(session)

    return asyncio.run(ask())


def test_a_heartbeat_is_recorded_again_and_again() -> None:
    maintenance.heartbeat("io")
    assert 0 <= ages()["worker:io"] < 30
    with db.session() as session, session.begin():
        session.execute(update(Heartbeat).values(beat_at=func.now() - timedelta(hours=1)))
    assert 3600 <= ages()["worker:io"] < 3700
    maintenance.heartbeat("io")
    assert ages()["worker:io"] < 30
