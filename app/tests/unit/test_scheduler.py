"""Beat's scheduler without PostgreSQL, and what the code itself schedules."""

import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.beat import Service
from sqlalchemy.exc import OperationalError

import fba_app.maintenance  # noqa: F401
from fba_app import db
from fba_app.celery import app
from fba_app.health import heartbeats
from fba_app.schedules import scheduler
from fba_app.schedules.scheduler import DatabaseScheduler


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, Any]]]:
    """What was handed to the broker."""
    messages: list[tuple[str, list[str], dict[str, Any]]] = []
    for name in ("fba_app.heartbeat", "fba_app.cleanup"):

        def accept(args: list[str], _: object, *, name: str = name, **options: Any) -> SimpleNamespace:
            messages.append((name, args, options))
            return SimpleNamespace(id="id-1")

        monkeypatch.setattr(app.tasks[name], "apply_async", accept)
    monkeypatch.setattr(DatabaseScheduler, "producer", None)
    return messages


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the thread did, on a PostgreSQL that does it."""
    done: list[str] = []
    monkeypatch.setattr(scheduler, "INTERVAL", 0.01)
    monkeypatch.setattr(scheduler, "realign", lambda: done.append("realign"))
    monkeypatch.setattr(scheduler, "fire_due", lambda: done.append("fire"))
    monkeypatch.setattr(heartbeats, "beat", done.append)
    return done


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_celery_finds_it_and_a_lazy_one_does_nothing() -> None:
    threads = threading.active_count()
    shown = Service(app, scheduler_cls=app.conf.beat_scheduler).get_scheduler(lazy=True)
    assert isinstance(shown, DatabaseScheduler)
    assert "PostgreSQL" in shown.info
    assert threading.active_count() == threads


def test_it_looks_until_it_is_closed(calls: list[str]) -> None:
    beat = DatabaseScheduler(app=app, max_interval=1, schedule_filename="unused")
    try:
        wait_for(lambda: calls.count("fire") >= 3)
    finally:
        beat.close()
    assert calls[:3] == ["realign", heartbeats.BEAT, "fire"]
    assert calls.count("realign") == 1
    assert calls.count(heartbeats.BEAT) == 1
    before = len(calls)
    beat.close()
    assert len(calls) == before


@pytest.mark.parametrize("failing", ["realign", "fire_due"])
@pytest.mark.parametrize("error", [OperationalError("", {}, Exception("away")), RuntimeError("odd")])
def test_whatever_fails_it_goes_on(
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
    error: Exception,
) -> None:
    failures = 0

    def fail() -> None:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise error
        calls.append("back")

    monkeypatch.setattr(scheduler, failing, fail)
    with caplog.at_level(logging.WARNING):
        beat = DatabaseScheduler(app=app)
        try:
            wait_for(lambda: "back" in calls)
        finally:
            beat.close()
    assert len(caplog.records) == 2


def test_one_schedule_that_fails_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    fired = []

    class Session:
        def __enter__(self) -> "Session":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def scalars(self, _: object) -> Any:
            return SimpleNamespace(all=lambda: [1, 2, 3])

    def fire(schedule_id: int) -> bool:
        if schedule_id == 2:
            raise ValueError("never comes true")
        fired.append(schedule_id)
        return True

    monkeypatch.setattr(db, "session", Session)
    monkeypatch.setattr(scheduler, "fire", fire)
    scheduler.fire_due()
    assert fired == [1, 3]


def test_what_the_code_schedules_is_sent_to_every_queue(
    calls: list[str], sent: list[tuple[str, list[str], dict[str, Any]]]
) -> None:
    beat = DatabaseScheduler(app=app)
    try:
        for entry in beat.schedule.values():
            # As if it had last run an hour and more ago.
            entry.last_run_at = entry.default_now().replace(year=2020)
        while len(sent) < 3:
            assert beat.tick() == 0
        assert 0 < beat.tick() <= 60
    finally:
        beat.close()
    options = {"headers": {"celery_beat_task": True}, "producer": None}
    assert sorted(sent, key=str) == [
        ("fba_app.cleanup", [], options | {"queue": "io", "expires": 3600}),
        ("fba_app.heartbeat", ["cpu"], options | {"queue": "cpu", "expires": 60}),
        ("fba_app.heartbeat", ["io"], options | {"queue": "io", "expires": 60}),
    ]
