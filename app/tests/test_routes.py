"""The routes, as a client sees them."""

import asyncio
import threading
import time
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import MessageNacked
from fastapi.testclient import TestClient
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from fba_app import cache, publish
from fba_app.celery import app as celery_app
from fba_app.main import create_app
from fba_app.routes import health
from fba_app.settings import get_settings
from fba_app.tasks import sleep


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was handed to the broker."""
    messages: list[tuple[Any, ...]] = []

    def accept(args: tuple[Any, ...], **_: object) -> SimpleNamespace:
        messages.append(args)
        return SimpleNamespace(id="id-1")

    monkeypatch.setattr(sleep, "apply_async", accept)
    return messages


class Store:
    """A Redis that only knows results."""

    def __init__(self, values: dict[bytes, str]) -> None:
        self.values = values

    async def get(self, key: bytes) -> str | None:
        return self.values.get(key)

    async def aclose(self) -> None:
        pass


def store(monkeypatch: pytest.MonkeyPatch, task_id: str, **meta: object) -> None:
    key = celery_app.backend.get_key_for_task(task_id)
    fake = Store({key: celery_app.backend.encode({"task_id": task_id, **meta})})
    monkeypatch.setattr(cache, "client", lambda: fake)


def test_a_task_is_submitted(client: TestClient, published: list[tuple[Any, ...]]) -> None:
    response = client.get("/run-task/", params={"duration": 7})
    assert response.status_code == 200
    assert response.json() == {"task_id": "id-1", "status": "Task submitted"}
    assert response.headers["Cache-Control"] == "no-store"
    assert published == [(7,)]


def test_the_duration_is_five_seconds_unless_given(client: TestClient, published: list[tuple[Any, ...]]) -> None:
    client.get("/run-task/")
    assert published == [(5,)]


@pytest.mark.parametrize("duration", ["-1", "3601", "1.5", "soon", ""])
def test_a_duration_out_of_bounds_submits_nothing(
    client: TestClient, published: list[tuple[Any, ...]], duration: str
) -> None:
    assert client.get("/run-task/", params={"duration": duration}).status_code == 422
    assert published == []


@pytest.mark.parametrize("longest", [0, 3])
def test_the_default_duration_keeps_to_a_short_limit(published: list[tuple[Any, ...]], longest: int) -> None:
    client = TestClient(create_app(get_settings().model_copy(update={"run_task_max_duration": longest})))
    assert client.get("/run-task/").status_code == 200
    assert published == [(longest,)]


def test_running_tasks_can_be_switched_off_but_not_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "id-1", status="STARTED", result=None)
    client = TestClient(create_app(get_settings().model_copy(update={"run_task_enabled": False})))
    assert client.get("/run-task/").status_code == 404
    assert client.get("/task-status/id-1").status_code == 200


@pytest.mark.parametrize("error", [OperationalError("away"), MessageNacked(), ConnectionResetError(), TimeoutError()])
def test_a_broker_that_refuses_is_503(client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sleep, "apply_async", refuse)
    response = client.get("/run-task/")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Cache-Control"] == "no-store"


def test_a_broker_that_is_not_there_is_503_within_seconds(client: TestClient) -> None:
    started = time.monotonic()
    assert client.get("/run-task/").status_code == 503
    assert time.monotonic() - started < publish.PUBLISH_TIMEOUT + 1


def test_a_broker_that_hangs_neither_holds_the_request_nor_the_others(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, release = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        asked.set()
        release.wait(10)

    monkeypatch.setattr(sleep, "apply_async", hang)
    monkeypatch.setattr(publish, "PUBLISH_TIMEOUT", 1.0)
    codes: list[int] = []
    request = threading.Thread(target=lambda: codes.append(client.get("/run-task/").status_code))
    try:
        request.start()
        assert asked.wait(5)
        assert client.get("/health/live").status_code == 200
        assert codes == []
        request.join(5)
        assert codes == [503]
    finally:
        release.set()


def test_a_finished_task_has_its_result(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "id-1", status="SUCCESS", result="Task completed in 1 seconds!")
    response = client.get("/task-status/id-1")
    assert response.json() == {"status": "SUCCESS", "result": "Task completed in 1 seconds!"}
    assert response.headers["Cache-Control"] == "no-store"


def test_a_result_of_nothing_is_still_a_result(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "id-1", status="SUCCESS", result=None)
    assert client.get("/task-status/id-1").json() == {"status": "SUCCESS", "result": None}


def test_a_failed_task_does_not_show_why(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = {"exc_type": "ValueError", "exc_message": ["db-pass"], "exc_module": "builtins"}
    store(monkeypatch, "id-1", status="FAILURE", result=failure, traceback="Traceback: db-pass")
    assert client.get("/task-status/id-1").json() == {"status": "FAILURE"}


def test_an_unknown_task_is_pending(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "id-1", status="SUCCESS", result=1)
    assert client.get("/task-status/another").json() == {"status": "PENDING"}


def test_a_result_store_that_is_not_there_is_503(client: TestClient) -> None:
    response = client.get("/task-status/id-1")
    assert response.status_code == 503
    assert "Retry-After" in response.headers


def test_live_needs_nothing(client: TestClient) -> None:
    assert client.get("/health/live").status_code == 200


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
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.3)
    started = time.monotonic()
    response = client.get("/health/ready")
    assert time.monotonic() - started < 0.8
    assert set(response.json()["checks"].values()) == {"timeout"}


def test_ready_hides_what_went_wrong(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RedisConnectionError("redis-pass at 10.0.0.1")

    monkeypatch.setitem(health.CHECKS, "redis", fail)
    assert "redis-pass" not in client.get("/health/ready").text


class Page(HTMLParser):
    """What a page offers to a reader who cannot see it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.language: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "html":
            self.language = values.get("lang")
        if tag in ("a", "link"):
            self.links.append(values["href"] or "")


def test_the_start_page_leads_on_and_every_file_it_names_is_served(client: TestClient) -> None:
    response = client.get("/")
    assert response.headers["Content-Type"].startswith("text/html")
    page = Page()
    page.feed(response.text)
    assert page.language == "en"
    assert page.tags.count("h1") == 1
    assert {"title", "main", "nav"} <= set(page.tags)
    assert {"/docs", "/flower/", "/static/style.css"} <= set(page.links)
    for link in page.links:
        if link.startswith("/static/"):
            assert client.get(link).status_code == 200
    assert client.get("/docs").status_code == 200
    # Following a link must not run a task.
    assert not any("run-task" in link for link in page.links)
