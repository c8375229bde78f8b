"""`/metrics`, as Prometheus sees it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from fba_app import metrics
from fba_app.health import routes as health
from fba_app.tasks.relay import Queue, relay


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server of a few routes, whose PostgreSQL is away."""
    app = FastAPI()
    app.include_router(metrics.router)
    app.add_middleware(metrics.Middleware)

    @app.get("/things/{thing}")
    async def thing(thing: int) -> int:
        return thing

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))

    async def well() -> None:
        pass

    async def away() -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(health, "CHECKS", {"postgres": away, "redis": well})
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def scrape(client: TestClient) -> dict[str, Metric]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def requests(client: TestClient) -> dict[tuple[str, str, str], float]:
    samples = scrape(client)["fba_http_requests"].samples
    return {(s.labels["method"], s.labels["route"], s.labels["status"]): s.value for s in samples}


def test_requests_are_counted_by_route_and_not_by_address(client: TestClient) -> None:
    client.get("/metrics")
    before = requests(client)
    for number in range(3):
        client.get(f"/things/{number}")
    client.get("/things/x")
    client.get("/broken")
    client.get("/stream")
    client.get("/nowhere")
    client.request("BREW", "/things/1")
    after = requests(client)
    grown = {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}
    del grown["GET", "/metrics", "200"]
    assert grown == {
        ("GET", "/things/{thing}", "200"): 3,
        ("GET", "/things/{thing}", "422"): 1,
        ("GET", "/broken", "500"): 1,
        ("GET", "/stream", "200"): 1,
        ("GET", "none", "404"): 1,
        ("other", "/things/{thing}", "405"): 1,
    }


def test_durations_are_measured(client: TestClient) -> None:
    client.get("/things/1")
    samples = scrape(client)["fba_http_request_duration_seconds"].samples
    mine = {
        s.name: s.value for s in samples if s.labels.get("route") == "/things/{thing}" and s.labels["method"] == "GET"
    }
    assert mine["fba_http_request_duration_seconds_count"] > 0
    assert 0 < mine["fba_http_request_duration_seconds_sum"] < 60


def test_without_postgresql_there_is_the_rest(client: TestClient) -> None:
    families = scrape(client)
    assert {s.labels["service"]: s.value for s in families["fba_up"].samples} == {"postgres": 0, "redis": 1}
    assert "fba_tasks" not in families


def test_a_postgresql_that_fails_meanwhile_fails_no_scrape(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(health.CHECKS, "postgres", health.CHECKS["redis"])
    families = scrape(client)
    assert families["fba_up"].samples[0].value == 1
    assert "fba_tasks" not in families
    assert "no metrics from PostgreSQL" in caplog.text
    assert "db-pass" not in caplog.text


def test_the_queues_are_told_of_while_the_broker_answers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "queues", (Queue("io", 7, 2), Queue("dead-letter", 3, 0)))
    assert scrape(client)["fba_queue_messages"].samples == []
    monkeypatch.setattr(relay, "_heard", time.monotonic())
    families = scrape(client)
    messages = {s.labels["queue"]: s.value for s in families["fba_queue_messages"].samples}
    consumers = {s.labels["queue"]: s.value for s in families["fba_queue_consumers"].samples}
    assert messages == {"io": 7, "dead-letter": 3}
    assert consumers == {"io": 2, "dead-letter": 0}


def test_it_is_not_part_of_the_documented_api(client: TestClient) -> None:
    assert "/metrics" not in client.get("/openapi.json").json()["paths"]


COUNT = """
from fba_app import metrics
metrics.REQUESTS.labels("GET", "/from-{process}", "200").inc(7)
print(metrics.os.environ["PROMETHEUS_MULTIPROC_DIR"])
"""


def folder_of(process: str) -> str:
    """Count in another process of the same parent; return its folder."""
    command = [sys.executable, "-c", COUNT.replace("{process}", process)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def test_the_processes_of_one_server_are_added_up(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("another")
    assert folder == folder_of("another")
    assert folder == str(metrics.FOLDERS / f"{metrics.PREFIX}{metrics._identity(os.getpid())}")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", folder)
    assert requests(client)["GET", "/from-another", "200"] == 14
    for file in Path(folder).iterdir():
        file.unlink()
    Path(folder).rmdir()


def test_the_folders_of_servers_that_have_ended_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FOLDERS", tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    alive = metrics._identity(os.getpid())
    for name in (f"{ended.pid}-123", f"{os.getpid()}-1", alive, "odd"):
        (tmp_path / f"{metrics.PREFIX}{name}").mkdir()
    (tmp_path / "another").mkdir()
    own = metrics._folder()
    assert {path.name for path in tmp_path.iterdir()} == {own.name, f"{metrics.PREFIX}{alive}", "another"}
    assert own.stat().st_mode & 0o777 == 0o700
