"""`/health`: whether the server lives, is ready, and the others do their part."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from redis.exceptions import ConnectionError as RedisConnectionError

from fba_app.health import heartbeats
from fba_app.health import routes as health

FRESH = {"beat": 1.04, "worker:io": 59.0, "worker:cpu": 0.0}


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A server that has these routes alone."""
    app = FastAPI()
    app.include_router(health.router)
    with TestClient(app) as client:
        yield client


def test_live_needs_nothing(client: TestClient) -> None:
    response = client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def _well() -> None:
    pass


@pytest.fixture
def all_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in health.CHECKS:
        monkeypatch.setitem(health.CHECKS, name, _well)


@pytest.mark.usefixtures("all_well")
def test_ready_when_all_answer(client: TestClient) -> None:
    response = client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "checks": {"postgres": "ok", "redis": "ok", "rabbitmq": "ok"}}
    assert response.headers["Cache-Control"] == "no-store"


REAL_CHECKS = dict(health.CHECKS)


@pytest.mark.usefixtures("all_well")
@pytest.mark.parametrize("away", REAL_CHECKS)
def test_not_ready_when_one_is_away(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, away: str
) -> None:
    # The real check meets the port on which nothing listens.
    monkeypatch.setitem(health.CHECKS, away, REAL_CHECKS[away])
    response = client.get("/health/ready")
    assert response.status_code == 503
    states = response.json()["checks"]
    assert states.pop(away) in ("unavailable", "timeout")
    assert set(states.values()) == {"ok"}
    assert away in caplog.text
    assert not any(secret in caplog.text + response.text for secret in ("db-pass", "redis-pass", "rabbit-pass"))


def test_checks_that_hang_run_out_together(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    for name in health.CHECKS:
        monkeypatch.setitem(health.CHECKS, name, hang)
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 1)
    started = time.monotonic()
    response = client.get("/health/ready")
    # One after the other would be three seconds
    assert time.monotonic() - started < 2.5
    assert set(response.json()["checks"].values()) == {"timeout"}


def test_ready_hides_what_went_wrong(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RedisConnectionError("redis-pass at 10.0.0.1")

    monkeypatch.setitem(health.CHECKS, "redis", fail)
    assert "redis-pass" not in client.get("/health/ready").text


def heard(monkeypatch: pytest.MonkeyPatch, ages: dict[str, float]) -> None:
    async def known(_: object) -> dict[str, float]:
        return ages

    monkeypatch.setattr(heartbeats, "ages", known)


def test_the_background_is_well_while_all_is_heard_of(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    heard(monkeypatch, FRESH)
    response = client.get("/health/background")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "checks": {
            "beat": {"state": "ok", "age_seconds": 1.0},
            "worker:io": {"state": "ok", "age_seconds": 59.0},
            "worker:cpu": {"state": "ok", "age_seconds": 0.0},
        },
    }
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("silent", "age"), [("beat", 30.1), ("worker:io", 150.1), ("worker:cpu", 9e9)])
def test_who_is_silent_for_too_long_is_stale(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, silent: str, age: float
) -> None:
    heard(monkeypatch, FRESH | {silent: age})
    response = client.get("/health/background")
    assert response.status_code == 503
    body = response.json()
    assert body["status"] == "stale"
    assert [name for name, pulse in body["checks"].items() if pulse["state"] == "stale"] == [silent]


def test_who_was_never_heard_of_is_stale(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    heard(monkeypatch, {"beat": 1.0, "worker:io": 1.0, "someone": 1.0})
    response = client.get("/health/background")
    assert response.status_code == 503
    assert response.json()["checks"]["worker:cpu"] == {"state": "stale", "age_seconds": None}
    assert "someone" not in response.text


def test_without_postgresql_nothing_is_known(client: TestClient) -> None:
    response = client.get("/health/background")
    assert response.status_code == 503
    assert response.json()["status"] == "stale"
    assert {pulse["state"] for pulse in response.json()["checks"].values()} == {"unknown"}
    assert "db-pass" not in response.text


def test_all_of_it_is_documented(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, statuses in (("live", ["200"]), ("ready", ["200", "503"]), ("background", ["200", "503"])):
        operation = paths[f"/health/{path}"]["get"]
        assert operation["tags"] == ["health"]
        assert operation["summary"]
        assert operation["description"]
        assert list(operation["responses"]) == statuses
