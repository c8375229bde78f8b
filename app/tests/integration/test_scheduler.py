"""Beat on a real PostgreSQL: each tick makes one task, whatever happens at that moment."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, delete, event, func, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from fba_app import db
from fba_app.celery import app
from fba_app.health import heartbeats
from fba_app.health.models import Heartbeat
from fba_app.schedules import scheduler, times
from fba_app.schedules.models import Schedule
from fba_app.schedules.scheduler import DatabaseScheduler, fire, fire_due, realign
from fba_app.settings import get_settings
from fba_app.tasks.models import State, Task
from fba_app.users.models import User


@pytest.fixture(autouse=True)
def _no_other_schedules() -> Iterator[None]:
    yield
    with db.session() as session, session.begin():
        session.execute(delete(Schedule))


@pytest.fixture
def beats() -> Iterator[Callable[[], DatabaseScheduler]]:
    """Start a beat, but for Celery's own loop."""
    started = []

    def start() -> DatabaseScheduler:
        started.append(DatabaseScheduler(app=app))
        return started[-1]

    yield start
    for beat in started:
        beat.close()


def ago(**duration: float) -> datetime:
    return datetime.now(UTC) - timedelta(**duration)


def add(**values: Any) -> UUID:
    """Add a schedule that has just become due, unless told otherwise."""
    schedule = Schedule(
        **{
            "id": uuid4(),
            "name": secrets.token_hex(8),
            "kind": "sleep",
            "arguments": {"duration": 0},
            "every": 3600,
            "next_run_at": ago(seconds=1),
        }
        | values
    )
    with db.session() as session, session.begin():
        session.add(schedule)
    return schedule.id


def get(schedule_id: UUID) -> Schedule:
    with db.session() as session:
        return session.get_one(Schedule, schedule_id)


def tasks_of(schedule_id: UUID) -> list[Task]:
    with db.session() as session:
        mine = Task.idempotency_key.startswith(f"schedule:{schedule_id}:")
        return list(session.scalars(select(Task).where(mine).order_by(Task.idempotency_key)))


def wait_for(condition: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_tick_adds_the_task_and_moves_the_schedule_on() -> None:
    user = User(id=uuid4(), username=secrets.token_hex(8), password_hash="none")
    with db.session() as session, session.begin():
        session.add(user)
    at = ago(seconds=1)
    schedule_id = add(next_run_at=at, created_by=user.id, arguments={"duration": 3})
    fire_due()
    (task,) = tasks_of(schedule_id)
    assert (task.kind, task.queue, task.state, task.arguments) == ("sleep", "io", State.QUEUED, {"duration": 3})
    assert task.submitted_by == user.id
    assert task.published_at is None
    assert task.idempotency_key == f"schedule:{schedule_id}:{at.isoformat()}"
    schedule = get(schedule_id)
    assert schedule.last_run_at == at
    assert schedule.next_run_at == times.next_run(None, 3600, datetime.now(UTC))
    fire_due()
    assert len(tasks_of(schedule_id)) == 1


def test_of_the_ticks_that_were_missed_one_is_made_up_for() -> None:
    at = ago(days=2)
    schedule_id = add(next_run_at=at, every=None, crontab="*/10 * * * *")
    fire_due()
    fire_due()
    (task,) = tasks_of(schedule_id)
    assert task.idempotency_key == f"schedule:{schedule_id}:{at.isoformat()}"
    due = get(schedule_id).next_run_at
    assert due is not None
    assert timedelta(0) < due - datetime.now(UTC) <= timedelta(minutes=10)


def test_one_that_is_not_due_or_not_enabled_stays_as_it_is() -> None:
    coming = add(next_run_at=ago(seconds=-60))
    off = add(enabled=False, next_run_at=None)
    fire_due()
    assert not fire(coming)
    assert not fire(off)
    assert tasks_of(coming) == tasks_of(off) == []


def test_many_at_once_make_one_task_of_each_tick() -> None:
    ids = [add() for _ in range(5)]
    start = threading.Barrier(8)

    def look() -> None:
        start.wait()
        fire_due()

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(look) for _ in range(8)]:
            each.result()
    assert [len(tasks_of(schedule_id)) for schedule_id in ids] == [1] * 5


def test_two_beats_make_one_task_of_each_tick(beats: Callable[[], DatabaseScheduler]) -> None:
    beats()
    beats()
    ids = [add() for _ in range(10)]
    wait_for(lambda: all(map(tasks_of, ids)))
    # Both have looked since.
    time.sleep(2 * scheduler.INTERVAL)
    assert [len(tasks_of(schedule_id)) for schedule_id in ids] == [1] * 10


def test_a_tick_whose_task_is_there_already_adds_no_other() -> None:
    at = ago(seconds=1)
    schedule_id = add(next_run_at=at)
    fire_due()
    with db.session() as session, session.begin():
        session.execute(update(Schedule).where(Schedule.id == schedule_id).values(next_run_at=at, last_run_at=None))
    fire_due()
    assert len(tasks_of(schedule_id)) == 1
    assert get(schedule_id).last_run_at == at


def test_a_tick_that_fails_at_the_last_moment_is_not_lost() -> None:
    schedule_id = add()
    before = get(schedule_id).next_run_at

    def fail(session: Session) -> None:
        session.flush()
        raise OperationalError("COMMIT", {}, Exception("the server closed the connection"))

    event.listen(Session, "before_commit", fail)
    try:
        with pytest.raises(OperationalError):
            fire(schedule_id)
    finally:
        event.remove(Session, "before_commit", fail)
    assert (tasks_of(schedule_id), get(schedule_id).next_run_at) == ([], before)
    assert fire(schedule_id)
    (task,) = tasks_of(schedule_id)
    assert before is not None
    assert task.idempotency_key == f"schedule:{schedule_id}:{before.astimezone(UTC).isoformat()}"


def test_who_changes_a_schedule_keeps_no_other_waiting() -> None:
    held, free = add(next_run_at=ago(seconds=9)), add()
    with db.session() as session, session.begin():
        session.execute(select(Schedule).where(Schedule.id == held).with_for_update())
        fire_due()
        assert tasks_of(held) == []
        assert len(tasks_of(free)) == 1
    fire_due()
    assert len(tasks_of(held)) == 1


def test_a_kind_that_is_gone_or_cannot_run_here_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    gone, off = add(kind="gone"), add(kind="email")
    assert get_settings().smtp_host is None
    fire_due()
    assert tasks_of(gone) == tasks_of(off) == []
    for schedule_id in (gone, off):
        due = get(schedule_id).next_run_at
        assert due is not None
        assert due > datetime.now(UTC)
        assert str(schedule_id) in caplog.text


def test_a_schedule_of_somebody_who_is_disabled_is_passed_over() -> None:
    user = User(id=uuid4(), username=secrets.token_hex(8), password_hash="none", disabled=True)
    with db.session() as session, session.begin():
        session.add(user)
    schedule_id = add(created_by=user.id)
    fire_due()
    assert tasks_of(schedule_id) == []
    due = get(schedule_id).next_run_at
    assert due is not None
    assert due > datetime.now(UTC)


def test_beat_learns_of_every_change_while_it_runs(beats: Callable[[], DatabaseScheduler]) -> None:
    beats()
    schedule_id = add(enabled=False, next_run_at=None)

    def change(**values: object) -> None:
        with db.session() as session, session.begin():
            session.execute(update(Schedule).where(Schedule.id == schedule_id).values(values))

    change(enabled=True, next_run_at=func.now())
    wait_for(lambda: len(tasks_of(schedule_id)) == 1)
    change(arguments={"duration": 7}, next_run_at=func.now())
    wait_for(lambda: len(tasks_of(schedule_id)) == 2)
    assert tasks_of(schedule_id)[1].arguments == {"duration": 7}
    change(enabled=False, next_run_at=None)
    other = add()
    wait_for(lambda: tasks_of(other))
    assert len(tasks_of(schedule_id)) == 2


def test_postgresql_away_and_back_loses_no_tick(
    beats: Callable[[], DatabaseScheduler], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    beat = beats()
    wait_for(lambda: heartbeat() is not None)
    away = create_engine(db.url(get_settings()).set(port=1))
    with monkeypatch.context() as patch:
        real = db.engine
        patch.setattr(db, "engine", lambda: away if threading.current_thread().name == "schedules" else real())
        schedule_id = add()
        wait_for(lambda: caplog.text.count("wait for PostgreSQL") >= 2)
        assert tasks_of(schedule_id) == []
        assert beat._thread.is_alive()
    wait_for(lambda: tasks_of(schedule_id))
    time.sleep(scheduler.INTERVAL)
    assert len(tasks_of(schedule_id)) == 1


def heartbeat() -> datetime | None:
    with db.session() as session:
        return session.scalar(select(Heartbeat.beat_at).where(Heartbeat.name == heartbeats.BEAT))


def test_beat_gives_a_sign_of_life(beats: Callable[[], DatabaseScheduler], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "HEARTBEAT_INTERVAL", 0.2)
    monkeypatch.setattr(scheduler, "INTERVAL", 0.1)
    beats()
    wait_for(lambda: heartbeat() is not None)
    first = heartbeat()
    assert first is not None
    wait_for(lambda: (heartbeat() or first) > first)
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)


def test_beat_starts_from_the_time_zone_that_now_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, past = ago(days=-3), ago(seconds=1)
    daily, interval, due = (
        add(every=None, crontab="30 3 * * *", next_run_at=wrong),
        add(next_run_at=wrong),
        add(every=None, crontab="30 3 * * *", next_run_at=past),
    )
    settings = get_settings().model_copy(update={"timezone": "Asia/Kolkata"})
    monkeypatch.setattr(times, "get_settings", lambda: settings)
    realign()
    at = get(daily).next_run_at
    assert at is not None
    assert at.astimezone(UTC).strftime("%H:%M") == "22:00"
    assert timedelta(0) < at - datetime.now(UTC) <= timedelta(days=1)
    assert get(interval).next_run_at == wrong
    assert get(due).next_run_at == past


@pytest.mark.parametrize(
    "wrong",
    [
        {"crontab": "* * * * *"},
        {"every": None},
        {"every": 9},
        {"enabled": False},
        {"next_run_at": None},
    ],
)
def test_postgresql_takes_no_schedule_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        add(**wrong)
