"""What the tasks do."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql

from fba_app import db
from fba_app.tasks import heartbeat, sleep


def test_sleep_says_how_long_it_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert sleep(1) == "Task completed in 1 seconds!"
    assert slept == [1]


def test_a_heartbeat_that_cannot_be_recorded_fails() -> None:
    with pytest.raises(exc.OperationalError):
        heartbeat()


def test_a_heartbeat_replaces_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    dialect = db.engine().dialect

    def execute(statement: postgresql.Insert) -> None:
        statements.append(str(statement.compile(dialect=dialect)))

    connection = nullcontext(SimpleNamespace(execute=execute))
    monkeypatch.setattr(db, "engine", lambda: SimpleNamespace(begin=lambda: connection))
    heartbeat()
    assert "ON CONFLICT (name) DO UPDATE SET beat_at = now()" in statements[0]
