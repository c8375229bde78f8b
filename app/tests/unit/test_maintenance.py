"""What the application does for itself."""

import logging

import pytest

from fba_app import maintenance
from fba_app.celery import app
from fba_app.health import heartbeats


def test_a_heartbeat_is_of_the_queue_that_it_came_by(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(heartbeats, "beat", names.append)
    maintenance.heartbeat("cpu")
    assert names == ["worker:cpu"]


def test_every_scheduled_task_exists_and_every_queue_has_a_heartbeat() -> None:
    entries = app.conf.beat_schedule
    assert {entry["task"] for entry in entries.values()} <= set(app.tasks)
    given = {heartbeats.worker(queue) for entry in entries.values() for queue in entry.get("args", [])}
    assert given | {heartbeats.BEAT} == set(heartbeats.LIMITS)


def test_what_cannot_be_cleaned_up_keeps_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done = []

    def fail() -> int:
        raise ConnectionError("away")

    def clean() -> int:
        done.append(True)
        return 7

    monkeypatch.setattr(maintenance, "STEPS", {"letters": fail, "parcels": clean})
    with caplog.at_level(logging.INFO):
        maintenance.cleanup()
    assert done
    assert "letters" in caplog.text
    assert "7 old parcels were deleted" in caplog.text
