"""`/api/v1/schedules`, on a real PostgreSQL."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete, select, text, update

from fba_app import db, errors
from fba_app.audit.models import AuditEntry
from fba_app.schedules import routes
from fba_app.schedules.models import Schedule
from fba_app.schedules.scheduler import fire_due
from fba_app.tasks.models import Task
from fba_app.tasks.relay import Relay
from fba_app.users import access
from fba_app.users.models import User
from fba_app.users.principal import Permission, Principal

URL = "/api/v1/schedules"
TASK = {"kind": "sleep", "arguments": {"duration": 1}}


def principal(*permissions: Permission) -> Principal:
    user = User(id=uuid4(), username=secrets.token_hex(8), password_hash="none")
    with db.session() as session, session.begin():
        session.add(user)
    return Principal(user.id, user.username, frozenset(permissions), "session", "127.0.0.1")


def become(app: object, user: Principal) -> None:
    """Be this user from now on."""
    assert isinstance(app, FastAPI)
    app.dependency_overrides[access.current_user] = lambda: user


@pytest.fixture
def manager() -> Principal:
    return principal(Permission.SCHEDULES_MANAGE)


@pytest.fixture(autouse=True)
def _broker_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relay, "available", True)


@pytest.fixture
def client(manager: Principal) -> Iterator[TestClient]:
    """The routes, asked by someone who may manage schedules."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await db.async_engine().dispose()

    app = FastAPI(lifespan=lifespan)
    errors.install(app)
    app.include_router(routes.router)
    become(app, manager)
    with TestClient(app) as client:
        yield client
    with db.session() as session, session.begin():
        session.execute(delete(Schedule))


def create(client: TestClient, **values: Any) -> dict[str, Any]:
    response = client.post(URL, json={"name": secrets.token_hex(8), "task": TASK, "every": 3600} | values)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    assert response.headers["Location"] == f"{URL}/{body['id']}"
    return body


def audited(action: str) -> list[AuditEntry]:
    with db.session() as session:
        return list(session.scalars(select(AuditEntry).where(AuditEntry.action == action).order_by("created_at")))


def tasks_of(schedule_id: str) -> list[Task]:
    with db.session() as session:
        return list(session.scalars(select(Task).where(Task.idempotency_key.startswith(f"schedule:{schedule_id}:"))))


def test_a_schedule_is_made_and_seen(client: TestClient, manager: Principal) -> None:
    made = create(client, name="Every hour")
    assert made["task"] == TASK
    assert (made["crontab"], made["every"], made["enabled"]) == (None, 3600, True)
    assert made["created_by"] == str(manager.id)
    assert made["last_run_at"] is None
    next_run_at = datetime.fromisoformat(made["next_run_at"])
    assert timedelta(0) < next_run_at - datetime.now(UTC) <= timedelta(hours=1)
    assert (next_run_at.minute, next_run_at.second) == (0, 0)
    assert client.get(f"{URL}/{made['id']}").json() == made
    entry = audited("schedule.create")[-1]
    assert (entry.user_id, entry.object_id, entry.details["name"]) == (manager.id, made["id"], "Every hour")


def test_one_that_is_not_enabled_has_no_next_run(client: TestClient) -> None:
    assert create(client, enabled=False)["next_run_at"] is None


def test_what_was_made_is_fired(client: TestClient, manager: Principal) -> None:
    made = create(client)
    with db.session() as session, session.begin():
        session.execute(update(Schedule).values(next_run_at=text("now()")))
    fire_due()
    (task,) = tasks_of(made["id"])
    assert (task.kind, task.arguments, task.submitted_by) == ("sleep", {"duration": 1}, manager.id)
    assert client.get(f"{URL}/{made['id']}").json()["last_run_at"] is not None


def test_a_name_is_given_once(client: TestClient) -> None:
    create(client, name="Mine")
    other = create(client)
    again = client.post(URL, json={"name": "Mine", "task": TASK, "every": 60})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    renamed = client.patch(f"{URL}/{other['id']}", json={"name": "Mine"})
    assert renamed.status_code == 409
    assert client.get(f"{URL}/{other['id']}").json() == other


@pytest.mark.parametrize(
    ("wrong", "location"),
    [
        ({"crontab": "0 0 30 2 *", "every": None}, ["body", "crontab"]),
        ({"crontab": "0 0 * *", "every": None}, ["body", "crontab"]),
        ({"crontab": "* * * * *"}, ["body"]),
        ({"every": None}, ["body"]),
        ({"every": 1}, ["body", "every"]),
        ({"every": 2**70}, ["body", "every"]),
        ({"name": "\0"}, ["body", "name"]),
        (
            {"task": {"kind": "sleep", "arguments": {"duration": "x"}}},
            ["body", "task", "sleep", "arguments", "duration"],
        ),
        ({"task": {"kind": "unknown", "arguments": {}}}, ["body", "task"]),
        ({"more": 1}, ["body", "more"]),
    ],
)
def test_what_is_wrong_is_refused_and_named(client: TestClient, wrong: dict[str, Any], location: list[str]) -> None:
    response = client.post(URL, json={"name": "x", "task": TASK, "every": 3600} | wrong)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["errors"][0]["location"] == location
    assert client.get(URL).json()["items"] == []


def test_a_task_that_cannot_run_here_is_refused(client: TestClient) -> None:
    task = {"kind": "email", "arguments": {"to": ["someone@example.org"], "subject": "Hello", "body": "Hello"}}
    response = client.post(URL, json={"name": "x", "task": task, "every": 3600})
    assert response.status_code in (409, 422), response.text
    assert client.get(URL).json()["items"] == []


def test_a_change_changes_what_it_says(client: TestClient) -> None:
    made = create(client)
    url = f"{URL}/{made['id']}"
    named = client.patch(url, json={"name": "Another name"}).json()
    assert named.pop("changed_at") > made["changed_at"]
    assert named == {key: value for key, value in made.items() if key != "changed_at"} | {"name": "Another name"}

    timed = client.patch(url, json={"crontab": "15 6 * * *"}).json()
    assert (timed["crontab"], timed["every"]) == ("15 6 * * *", None)
    assert datetime.fromisoformat(timed["next_run_at"]).strftime("%M:%S") == "15:00"
    assert client.patch(url, json={"every": 60}).json()["crontab"] is None

    task = {"kind": "sleep", "arguments": {"duration": 2}}
    assert client.patch(url, json={"task": task}).json()["task"] == task
    entry = audited("schedule.change")[-1]
    assert (entry.object_id, entry.details) == (made["id"], {"arguments": "…"})


def test_disabling_stops_it_and_enabling_makes_up_for_nothing(client: TestClient) -> None:
    made = create(client)
    url = f"{URL}/{made['id']}"
    assert client.patch(url, json={"enabled": False}).json()["next_run_at"] is None
    assert client.patch(url, json={"every": 60}).json()["next_run_at"] is None
    enabled = client.patch(url, json={"enabled": True}).json()
    assert datetime.fromisoformat(enabled["next_run_at"]) > datetime.now(UTC)
    fire_due()
    assert tasks_of(made["id"]) == []


def test_a_change_to_the_same_is_none(client: TestClient) -> None:
    made = create(client)
    before = len(audited("schedule.change"))
    for same in ({}, {"name": made["name"], "every": 3600, "enabled": True, "task": TASK}, {"crontab": None}):
        assert client.patch(f"{URL}/{made['id']}", json=same).json() == made
    assert len(audited("schedule.change")) == before


@pytest.mark.parametrize("wrong", [{"every": 1}, {"crontab": "* * * * *", "every": 60}, {"crontab": "x"}, {"task": {}}])
def test_a_wrong_change_changes_nothing(client: TestClient, wrong: dict[str, Any]) -> None:
    made = create(client)
    assert client.patch(f"{URL}/{made['id']}", json=wrong).status_code == 422
    assert client.get(f"{URL}/{made['id']}").json() == made


def test_schedules_are_listed_in_pages(client: TestClient) -> None:
    made = [create(client)["id"] for _ in range(5)]
    found, cursor = [], None
    while True:
        page = client.get(URL, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == made[::-1]


def test_one_that_is_deleted_is_gone_and_its_tasks_are_not(client: TestClient) -> None:
    made = create(client)
    url = f"{URL}/{made['id']}"
    assert client.post(f"{url}/run").status_code == 202
    assert client.delete(url).status_code == 204
    for response in (client.get(url), client.delete(url), client.patch(url, json={}), client.post(f"{url}/run")):
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert audited("schedule.delete")[-1].object_id == made["id"]
    with db.session() as session:
        assert session.get(Task, UUID(audited("schedule.run")[-1].details["task_id"])) is not None


def test_running_now_adds_a_task_of_the_schedules_maker(client: TestClient, manager: Principal) -> None:
    made = create(client, enabled=False)
    other = principal(Permission.SCHEDULES_MANAGE)
    become(client.app, other)
    response = client.post(f"{URL}/{made['id']}/run")
    assert response.status_code == 202
    task_id = response.json()["task_id"]
    assert response.headers["Location"] == f"/api/v1/tasks/{task_id}"
    with db.session() as session:
        task = session.get_one(Task, UUID(task_id))
    assert (task.kind, task.queue, task.arguments, task.submitted_by) == ("sleep", "io", {"duration": 1}, manager.id)
    entry = audited("schedule.run")[-1]
    assert (entry.user_id, entry.object_id, entry.details) == (other.id, made["id"], {"task_id": task_id})
    assert client.post(f"{URL}/{made['id']}/run").json()["task_id"] != task_id


def test_a_repeated_run_is_one(client: TestClient) -> None:
    made = create(client)
    first, second = (client.post(f"{URL}/{made['id']}/run", headers={"Idempotency-Key": "k" * 255}) for _ in range(2))
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(tasks_of(made["id"])) == 1
    client.patch(f"{URL}/{made['id']}", json={"task": {"kind": "sleep", "arguments": {"duration": 2}}})
    third = client.post(f"{URL}/{made['id']}/run", headers={"Idempotency-Key": "k" * 255})
    assert third.status_code == 409


@pytest.mark.parametrize("kind", ["gone", "email"])
def test_what_cannot_run_any_more_is_not_run_now(client: TestClient, kind: str) -> None:
    made = create(client)
    with db.session() as session, session.begin():
        session.execute(update(Schedule).values(kind=kind))
    response = client.post(f"{URL}/{made['id']}/run")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert client.get(f"{URL}/{made['id']}").json()["task"]["kind"] == kind


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ""), ("GET", ""), ("GET", "/{id}"), ("PATCH", "/{id}"), ("DELETE", "/{id}"), ("POST", "/{id}/run")],
)
def test_all_of_it_needs_the_permission(client: TestClient, method: str, path: str) -> None:
    made = create(client)
    other = principal(*(set(Permission) - {Permission.SCHEDULES_MANAGE}))
    become(client.app, other)
    body = {"name": "x", "task": TASK, "every": 60} if method == "POST" and not path else {}
    response = client.request(method, URL + path.format(id=made["id"]), json=body)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def test_a_maker_who_is_deleted_leaves_the_schedule(client: TestClient, manager: Principal) -> None:
    made = create(client)
    with db.session() as session, session.begin():
        session.execute(delete(User).where(User.id == manager.id))
    assert client.get(f"{URL}/{made['id']}").json()["created_by"] is None


def test_all_of_it_is_documented(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (path, method)
            assert operation["description"], (path, method)
    schemas = document["components"]["schemas"]
    assert schemas["NewSchedule"]["additionalProperties"] is False
    assert "sleep" in schemas["NewSchedule"]["properties"]["task"]["discriminator"]["mapping"]
    assert len(schemas["NewSchedule"]["oneOf"]) == 2
