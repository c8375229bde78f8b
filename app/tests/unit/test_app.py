"""What holds for every request: one shape of errors, limits, headers, and a document that says so."""

import gc
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from fba_app.errors import MEDIA_TYPE, Problem
from fba_app.main import app, create_app
from fba_app.settings import get_settings
from fba_app.tasks.relay import relay
from fba_app.users.access import current_user
from fba_app.users.principal import Permission, Principal


def problem(response: Any, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == MEDIA_TYPE
    assert response.headers["Cache-Control"] == "no-store"
    problem = Problem.model_validate(response.json())
    assert problem.status == status
    return problem


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing-here", 404),
        ("DELETE", "/run-task/", 405),
        ("GET", "/run-task/?duration=soon", 422),
        ("GET", "/run-task/?duration=-1", 422),
        ("GET", "/run-task/?duration=3601", 422),
        ("GET", "/run-task/?duration=", 422),
        ("GET", "/api/v1/tasks", 401),
        ("GET", "/api/v1/tasks/not-a-uuid", 401),
        ("GET", "/%00", 404),
    ],
)
def test_an_error_has_one_shape(client: TestClient, method: str, path: str, status: int) -> None:
    problem(client.request(method, path), status)


def test_a_method_that_a_path_does_not_have_is_told_which_it_has(client: TestClient) -> None:
    response = client.put("/api/v1/tasks")
    problem(response, 405)
    assert response.headers["Allow"] == "GET, POST"


def test_a_service_that_is_away_is_503_and_says_when_to_come_back(client: TestClient) -> None:
    for path in ("/run-task/", "/task-status/0b0f9a2e-6f0e-4a55-9f5c-3d1f6f0a7c11"):
        response = client.get(path)
        problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0


def test_a_task_that_cannot_exist_is_pending(client: TestClient) -> None:
    response = client.get("/task-status/anything")
    assert response.json() == {"status": "PENDING"}
    assert response.headers["Cache-Control"] == "no-store"


def test_running_tasks_can_be_switched_off_but_not_their_status() -> None:
    client = TestClient(create_app(get_settings().model_copy(update={"run_task_enabled": False})))
    assert client.get("/run-task/").status_code == 404
    assert client.get("/task-status/anything").status_code == 200


def test_a_fault_of_ours_shows_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("db-pass")

    monkeypatch.setattr("fba_app.tasks.run_task.UUID", fail)
    client = TestClient(create_app(get_settings()), raise_server_exceptions=False)
    response = client.get("/task-status/anything")
    problem(response, 500)
    assert "db-pass" not in response.text
    assert "Traceback" not in response.text


@pytest.fixture
def submitter(client: TestClient) -> Iterator[TestClient]:
    """A client that is logged in, as far as the routes can tell."""
    user = Principal(UUID(int=1), "someone", frozenset(Permission), "session", "127.0.0.1")
    app.dependency_overrides[current_user] = lambda: user
    yield client
    app.dependency_overrides.clear()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"kind": "nothing", "arguments": {}}',
        b'{"kind": "sleep"}',
        b'{"kind": "sleep", "arguments": {"duration": "x"}}',
        b'{"kind": "sleep", "arguments": {"duration": 1e400}}',
        b'{"kind": "sleep", "arguments": {"duration": 1, "more": 1}}',
        b'{"kind": "sleep", "arguments": {"duration": 1}, "more": 1}',
        b'{"kind": "report", "arguments": {"title": "\\u0000", "days": 1, "format": "pdf"}}',
        b'{"kind": "report", "arguments": {"title": "\\ud800", "days": 1, "format": "pdf"}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_broken_body_is_refused(submitter: TestClient, body: bytes) -> None:
    response = submitter.post("/api/v1/tasks", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500, response.text
    problem(response, response.status_code)


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "\u00fc"])
def test_a_broken_key_is_refused(submitter: TestClient, key: str) -> None:
    body = {"kind": "sleep", "arguments": {"duration": 1}}
    response = submitter.post("/api/v1/tasks", json=body, headers={b"Idempotency-Key": key.encode()})
    problem(response, 422)


def test_a_body_over_the_limit_is_refused_by_what_it_says_and_by_what_it_sends(submitter: TestClient) -> None:
    size = get_settings().request_max_size + 1
    problem(submitter.post("/api/v1/tasks", content=b" " * size), 413)
    problem(submitter.post("/api/v1/tasks", content=iter([b" " * size])), 413)


def test_the_security_headers_are_on_every_answer(client: TestClient) -> None:
    for path in ("/health/live", "/nothing-here", "/static/style.css"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "script-src" not in headers["Content-Security-Policy"]


def test_the_documentation_comes_from_here_alone(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "cdn" not in page.text
    assert "unsafe-inline" in page.headers["Content-Security-Policy"]
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200


def test_the_document_describes_errors_as_they_are(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation.get("summary"), where
            assert operation.get("description"), where
            for status, described in operation["responses"].items():
                if int(status) >= 400 and not path.startswith("/health/"):
                    assert MEDIA_TYPE in described["content"], f"{where} {status}"


def test_what_was_imported_is_kept_from_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "start", lambda: None)
    try:
        with TestClient(create_app(get_settings())) as client:
            kept = gc.get_freeze_count()
            assert client.get("/health/live").status_code == 200
    finally:
        gc.unfreeze()
    assert kept > 50_000
