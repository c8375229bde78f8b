"""What `/metrics` tells of PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, func

import fba_app.models  # noqa: F401
from fba_app import db, metrics
from fba_app.health import heartbeats
from fba_app.health import routes as health
from fba_app.tasks.models import State, Task


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await db.async_engine().dispose()

    monkeypatch.setattr(health, "CHECKS", {"postgres": health.CHECKS["postgres"]})
    app = FastAPI(lifespan=lifespan)
    app.include_router(metrics.router)
    app.include_router(health.router)
    with TestClient(app) as client:
        yield client


def scrape(client: TestClient) -> dict[str, dict[tuple[str, ...], float]]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {f.name: {tuple(s.labels.values()): s.value for s in f.samples} for f in families}


def add(**values: Any) -> None:
    with db.session() as session, session.begin():
        session.add(Task(**{"kind": "sleep", "queue": "io", "arguments": {}} | values))


def test_tasks_and_heartbeats_are_told(client: TestClient) -> None:
    with db.session() as session, session.begin():
        session.execute(delete(Task))
    found = scrape(client)
    assert found["fba_up"] == {("postgres",): 1}
    assert (found["fba_tasks_due"], found["fba_tasks_due_oldest_seconds"]) == ({(): 0}, {(): 0})

    now = datetime.now(UTC)
    add(due_at=now - timedelta(seconds=90))
    add(due_at=now - timedelta(seconds=30), state=State.RETRYING)
    add(due_at=now + timedelta(seconds=90), state=State.RETRYING)
    add(published_at=func.now())
    add(kind="report", state=State.SUCCEEDED, due_at=now - timedelta(days=1))
    heartbeats.beat("beat")
    found = scrape(client)
    assert found["fba_tasks"] == {("sleep", "queued"): 2, ("sleep", "retrying"): 2, ("report", "succeeded"): 1}
    assert found["fba_tasks_due"] == {(): 2}
    assert 90 <= found["fba_tasks_due_oldest_seconds"][()] < 120
    assert 0 <= found["fba_heartbeat_age_seconds"]["beat",] < 30


def test_the_background_is_read_from_the_table(client: TestClient) -> None:
    for name in heartbeats.LIMITS:
        heartbeats.beat(name)
    response = client.get("/health/background")
    assert (response.status_code, response.json()["status"]) == (200, "ok")
