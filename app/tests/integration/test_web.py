"""The pages, as a browser without scripts uses them."""

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete, func, select, update

from fba_app import cache, db, errors
from fba_app.files.models import File
from fba_app.schedules.models import Schedule
from fba_app.settings import get_settings
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import KINDS
from fba_app.tasks.relay import relay
from fba_app.users import passwords
from fba_app.users.access import COOKIE
from fba_app.users.models import Role, User
from fba_app.users.principal import Permission
from fba_app.web import routes

PASSWORD = "correct horse battery"
NEW_PASSWORD = "staple of the twelve moons"
ORIGIN = {"Origin": "http://testserver"}

Visit = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("STORAGE_BACKEND", "volume")
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path))
    monkeypatch.setenv("UPLOAD_MAX_SIZE", "2048")
    monkeypatch.setattr(type(relay), "available", property(lambda _: True))
    get_settings.cache_clear()
    for key in cache.sync_client().scan_iter("attempts:*"):
        cache.sync_client().delete(key)
    yield
    with db.session() as session, session.begin():
        session.execute(delete(Schedule))
    get_settings.cache_clear()


@pytest.fixture
def anybody() -> Iterator[TestClient]:
    """A browser, of nobody yet. Its redirects are followed by the test, which wants to see them."""
    cache.client.cache_clear()
    db.async_engine.cache_clear()
    app = FastAPI()
    errors.install(app)
    app.include_router(routes.router)
    with TestClient(app, headers=ORIGIN, follow_redirects=False) as client:
        yield client
        assert client.portal
        client.portal.call(db.async_engine().dispose)
        client.portal.call(cache.client().aclose)


def someone(*permissions: Permission) -> str:
    """Make a user with these permissions, and return the name."""
    name = f"user-{secrets.token_hex(4)}"
    role = Role(name=f"role-{secrets.token_hex(4)}", permissions=[str(each) for each in permissions])
    user = User(id=uuid4(), username=name, password_hash=passwords.hash_now(PASSWORD), roles=[role])
    with db.session() as session, session.begin():
        session.add(user)
    return name


@pytest.fixture
def visit(anybody: TestClient) -> Visit:
    """A function that logs the browser in as a new user with the permissions that it is called with."""

    def visit(*permissions: Permission) -> TestClient:
        anybody.cookies.clear()
        form = {"username": someone(*permissions), "password": PASSWORD, "next": "/"}
        response = anybody.post("/login", data=form)
        assert (response.status_code, response.headers["Location"]) == (303, "/")
        return anybody

    return visit


def said(text: str) -> str:
    """Return what a page says, without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def tasks() -> list[Task]:
    """Return all tasks, the newest first."""
    with db.session() as session:
        return list(session.scalars(select(Task).order_by(Task.created_at.desc(), Task.id)))


def change(task_id: UUID, **values: Any) -> None:
    with db.session() as session, session.begin():
        session.execute(update(Task).where(Task.id == task_id).values(values))


def follow(client: TestClient, response: Any, to: str) -> str:
    """Go where a form has sent the browser, and return what it says there."""
    assert (response.status_code, response.headers["Location"]) == (303, to), response.text
    return said(client.get(to).text)


def test_log_in_and_out(anybody: TestClient) -> None:
    name = someone(Permission.TASKS_SUBMIT)
    wrong = anybody.post("/login", data={"username": name, "password": "not this one", "next": "/files"})
    assert wrong.status_code == 401
    assert "The username or the password is wrong." in wrong.text
    assert f'value="{name}"' in wrong.text
    assert 'name="next" value="/files"' in wrong.text
    assert "not this one" not in wrong.text
    right = anybody.post("/login", data={"username": name, "password": PASSWORD, "next": "//elsewhere.example"})
    assert right.headers["Location"] == "/"
    assert anybody.get("/login?next=/account").headers["Location"] == "/account"
    assert name in anybody.get("/").text
    cookie = anybody.cookies[COOKIE]
    out = anybody.post("/logout")
    assert "You are logged out." in follow(anybody, out, "/login?done=logged-out")
    anybody.cookies.set(COOKIE, cookie)
    assert anybody.get("/").headers["Location"] == "/login?next=%2F"


def test_a_form_of_another_site_changes_nothing(visit: Visit) -> None:
    client = visit(Permission.TASKS_SUBMIT)
    before = len(tasks())
    answer = client.post("/?kind=sleep", data={"duration": "1"}, headers={"Origin": "http://elsewhere.example"})
    assert answer.status_code == 403
    assert "With a cookie, this must be asked by a page of this site." in said(answer.text)
    assert len(tasks()) == before


def test_a_task_from_its_form_to_its_result(visit: Visit) -> None:
    client = visit(Permission.TASKS_SUBMIT)
    assert "Nothing yet." in client.get("/").text
    once = re.search(r'name="once" value="([^"]+)"', client.get("/?kind=sleep").text)
    assert once
    form = {"once": once[1], "duration": "7"}
    answers = [client.post("/?kind=sleep", data=form) for _ in range(2)]
    for answer in answers:
        assert "The task is accepted." in follow(client, answer, "/?kind=sleep&done=started")
    task, *others = tasks()
    assert task.arguments == {"duration": 7}
    # The second click was not a second task, but another content would have been.
    assert not [other for other in others if other.submitted_by == task.submitted_by]
    client.post("/?kind=sleep", data=form | {"duration": "8"})
    assert len([each for each in tasks() if each.submitted_by == task.submitted_by]) == 2

    page = client.get(f"/tasks/{task.id}")
    assert "Sleep for 7 seconds Queued Progress 0 %" in said(page.text)
    assert f'data-watch="{task.id}"' in page.text
    change(
        task.id,
        state=State.SUCCEEDED,
        result={"message": "Well <slept>."},
        started_at=func.now(),
        finished_at=func.now(),
    )
    page = client.get(f"/tasks/{task.id}")
    assert "Result Well <slept>." in said(page.text)
    assert "data-watch" not in page.text


def test_a_task_is_cancelled(visit: Visit) -> None:
    client = visit(Permission.TASKS_SUBMIT)
    client.post("/?kind=sleep", data={"duration": "7"})
    task = tasks()[0]
    answer = client.post(f"/tasks/{task.id}/cancel", data={"next": "/?kind=sleep"})
    assert "Sleep for 7 seconds Cancelled" in follow(client, answer, "/?kind=sleep&done=cancelled")
    assert tasks()[0].state == State.CANCELLED
    # It is too late for a second time, which is no reason to complain.
    assert client.post(f"/tasks/{task.id}/cancel", data={"next": "//x"}).headers["Location"] == "/"


def test_others_tasks_are_seen_only_by_who_may_see_all(visit: Visit) -> None:
    visit(Permission.TASKS_SUBMIT).post("/?kind=sleep", data={"duration": "12"})
    task = tasks()[0]
    client = visit(Permission.TASKS_SUBMIT)
    assert client.get(f"/tasks/{task.id}").status_code == 404
    assert client.post(f"/tasks/{task.id}/cancel").status_code == 404
    assert str(task.id) not in client.get("/?everyone=1").text
    assert "Everyone" not in client.get("/").text
    client = visit(Permission.TASKS_SUBMIT, Permission.TASKS_MANAGE)
    assert str(task.id) not in client.get("/").text
    assert re.search(r"Sleep for 12 seconds Queued .* by user-", said(client.get("/?everyone=1").text))
    assert client.get(f"/tasks/{task.id}").status_code == 200


def test_lists_are_filtered_and_turned_over(visit: Visit) -> None:
    client = visit(Permission.TASKS_SUBMIT)
    for duration in range(20):
        client.post("/?kind=sleep", data={"duration": str(duration)})
    change(tasks()[0].id, state=State.FAILED, error="It was too long.")
    first = client.get("/?show=running")
    older = re.search(r'<a href="([^"]+)">Older tasks', first.text)
    assert older
    second = client.get(unescape(older[1]))
    names = re.findall(r'class="name"[^>]*>Sleep for (\d+) second', first.text + second.text)
    assert names == [str(number) for number in reversed(range(19))]
    failed = said(client.get("/?show=failed").text)
    assert "Sleep for 19 seconds Failed" in failed
    assert "It was too long." in failed
    assert "Sleep for 18" not in failed
    assert "No such task." in client.get("/?show=succeeded").text


def test_what_is_wrong_is_said_beside_the_field_and_nothing_is_lost(visit: Visit) -> None:
    client = visit(Permission.TASKS_SUBMIT)
    before = len(tasks())
    answer = client.post("/?kind=report", data={"title": "<Mine>", "days": "999", "format": "xlsx"})
    assert answer.status_code == 422
    assert "<title>Error: Tasks" in answer.text
    assert re.search(r'id="days-error">.*This should be less than or equal to 365\.', answer.text)
    assert 'value="&lt;Mine&gt;"' in answer.text
    assert 'value="xlsx" checked' in answer.text
    assert len(tasks()) == before
    # What the form does not show, the service refuses.
    form = {"title": "T", "days": "1", "format": "pdf", "scope": "all"}
    assert "needs the permission tasks:manage" in client.post("/?kind=report", data=form).text
    form = {"file_id": str(uuid4()), "delimiter": ","}
    assert "There is no file" in client.post("/?kind=pipeline", data=form).text
    assert client.post("/?kind=pipeline_part", data={}).status_code == 404
    assert len(tasks()) == before


def test_what_cannot_be_run_here_has_no_form(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    client = visit(Permission.TASKS_SUBMIT)
    away = replace(KINDS["email"], unavailable=lambda _: "SMTP_HOST is not set")
    monkeypatch.setitem(KINDS, "email", away)
    page = client.get("/?kind=email").text
    assert "This is not available here: SMTP_HOST is not set." in page
    assert 'name="subject"' not in page
    form = {"to": "a@example.com", "subject": "S", "text": "T"}
    assert client.post("/?kind=email", data=form).status_code == 409


def test_each_kind_shows_its_result(visit: Visit) -> None:
    client = visit(Permission.TASKS_SUBMIT, Permission.FILES_WRITE)
    client.post("/files", files={"file": ("orders.csv", b"city,price\nRome,1\n", "text/csv")})
    with db.session() as session:
        file = session.scalars(select(File).order_by(File.created_at.desc()).limit(1)).one()
    column = {"count": 1, "missing": 0, "min": 1, "max": 1, "sum": 1, "mean": 1.0, "std": None}
    text = {"count": 1, "missing": 0, "min": "<Rome>", "max": "Rome", "sum": None, "mean": None, "std": None}
    group = {"group": "Rome", "count": 1, "sum": 1, "mean": 1.0, "min": 1, "max": 1}
    made = {"id": str(file.id), "name": "report.pdf", "url": "/", "size": 2048}
    cases: list[tuple[str, dict[str, str], dict[str, Any], list[str]]] = [
        (
            "report",
            {"title": "T", "days": "1", "format": "pdf"},
            {"files": [made]},
            ["report.pdf 2 KiB", f"/api/v1/files/{file.id}/content"],
        ),
        (
            "inference",
            {"sample": "0"},
            {"predictions": [{"digit": 2, "probability": 0.924}], "model": "digits/1"},
            ["2 92.4 % sure", "<rect"],
        ),
        (
            "pipeline",
            {"file_id": str(file.id), "delimiter": ",", "group_by": "city", "value": "price"},
            {
                "rows": 1234,
                "bytes": 18,
                "parts": 2,
                "columns": [{"name": "city", "kind": "text"} | text, {"name": "price", "kind": "number"} | column],
                "groups": {"by": "city", "value": "price", "rows": [group], "truncated": False},
            },
            [
                "1,234 rows in 18 bytes, computed in 2 parts.",
                "city text 1 0 <Rome> Rome",
                "price by city",
                "Rome 1 1 1 1 1",
            ],
        ),
    ]
    for kind, form, result, expected in cases:
        assert client.post(f"/?kind={kind}", data=form).status_code == 303
        task = tasks()[0]
        assert task.kind == kind
        change(task.id, state=State.SUCCEEDED, result=result, started_at=func.now(), finished_at=func.now())
        page = client.get(f"/tasks/{task.id}").text
        for each in expected:
            assert each in said(page) or each in page, kind
    home = client.get("/")
    for outcome in ("Statistics of orders.csv Succeeded", "read as 2", "1,234 rows", "Download PDF"):
        assert outcome in said(home.text)


def test_files_come_and_go(visit: Visit) -> None:
    client = visit(Permission.FILES_WRITE, Permission.TASKS_SUBMIT)
    stored = client.post("/files", files={"file": ("a <b>.csv", b"a,b\n1,2\n", "text/csv")})
    page = follow(client, stored, "/files?done=uploaded")
    assert "The file is uploaded." in page
    assert "a <b>.csv 8 bytes" in page
    deleting = re.search(r'href="(/files/[^"]+/delete)"', client.get("/files").text)
    assert deleting
    assert "Delete a <b>.csv?" in said(client.get(deleting[1]).text)
    visit(Permission.FILES_WRITE)
    assert client.get(deleting[1]).status_code == 404
    assert client.post(deleting[1]).status_code == 404
    visit(Permission.FILES_WRITE, Permission.FILES_MANAGE)
    assert "a <b>.csv" not in said(client.get("/files").text)
    assert re.search(r"a <b>\.csv 8 bytes .* of user-", said(client.get("/files?everyone=1").text))
    assert "The file is deleted." in follow(client, client.post(deleting[1]), "/files?done=file-deleted")
    assert client.get(deleting[1]).status_code == 404


@pytest.mark.parametrize(
    ("name", "content", "status", "complaint"),
    [
        ("run.exe", b"MZ", 415, "A file's name must end in one of"),
        ("long.csv", b"x" * 2049, 413, "A file may have 2048 bytes at most."),
    ],
)
def test_a_file_that_is_not_taken(visit: Visit, name: str, content: bytes, status: int, complaint: str) -> None:
    answer = visit(Permission.FILES_WRITE).post("/files", files={"file": (name, content)})
    assert answer.status_code == status
    assert complaint in said(answer.text)
    assert "There is no file here." in answer.text


def test_a_form_without_a_file(visit: Visit) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = visit(Permission.FILES_WRITE).post("/files", content=body, headers=headers)
    assert answer.status_code == 422
    assert "Choose a file." in answer.text


def test_a_schedule_from_beginning_to_end(visit: Visit) -> None:
    client = visit(Permission.SCHEDULES_MANAGE, Permission.TASKS_SUBMIT)
    form = {"name": "Breathe", "duration": "3", "every": "3600", "crontab": "", "enabled": "yes"}
    created = client.post("/schedules/new?kind=sleep", data=form)
    page = follow(client, created, "/schedules?done=schedule-created")
    assert "Breathe Enabled Sleep for 3 seconds every 1 h next" in page
    taken = client.post("/schedules/new?kind=sleep", data=form)
    assert taken.status_code == 409
    assert "There is a schedule Breathe already." in taken.text

    with db.session() as session:
        schedule = session.scalars(select(Schedule)).one()
    at = f"/schedules/{schedule.id}"
    page = client.get(at).text
    assert 'id="duration" name="duration" value="3"' in page
    wrong = client.post(f"{at}?kind=sleep", data=form | {"every": "", "crontab": "61 * * * *"})
    assert wrong.status_code == 422
    assert 'id="crontab-error"' in wrong.text
    changed = client.post(f"{at}?kind=sleep", data=form | {"duration": "4", "every": "", "crontab": "30 3 * * *"})
    assert "Sleep for 4 seconds 30 3 * * *" in follow(client, changed, "/schedules?done=schedule-changed")

    disabled = client.post(f"{at}/disable")
    assert "Breathe Disabled" in follow(client, disabled, "/schedules?done=schedule-changed")
    run = client.post(f"{at}/run")
    assert "A task of this schedule is accepted." in follow(client, run, "/schedules?done=schedule-run")
    assert (tasks()[0].kind, tasks()[0].arguments) == ("sleep", {"duration": 4})
    client.post(f"{at}/enable")
    assert "Breathe Enabled" in said(client.get("/schedules").text)
    assert "Delete Breathe?" in client.get(f"{at}/delete").text
    client.post(f"{at}/delete")
    assert "There is no schedule yet." in client.get("/schedules").text
    assert client.get(at).status_code == 404


def test_a_schedule_that_the_form_cannot_hold_is_edited_as_json(visit: Visit) -> None:
    client = visit(Permission.SCHEDULES_MANAGE)
    arguments = {"images": [[3] * 64, [5] * 64]}
    values = {"kind": "inference", "arguments": arguments, "every": 60, "enabled": False}
    schedule = Schedule(id=uuid4(), name="Read", **values)
    with db.session() as session, session.begin():
        session.add(schedule)
    page = client.get(f"/schedules/{schedule.id}").text
    shown = re.search(r'<textarea id="arguments"[^>]*>\n(.*?)</textarea>', page, re.DOTALL)
    assert shown
    form = {"name": "Read again", "every": "60", "arguments": unescape(shown[1])}
    client.post(f"/schedules/{schedule.id}?kind=inference", data=form)
    with db.session() as session:
        kept = session.get_one(Schedule, schedule.id)
    assert (kept.name, kept.arguments, kept.enabled) == ("Read again", arguments, False)


def test_a_password_is_changed_and_ends_all_sessions(visit: Visit) -> None:
    client = visit()
    name = re.search(r"Your account: </span>([^<]+)<", client.get("/account").text)
    assert name
    form = {"present_password": PASSWORD, "new_password": NEW_PASSWORD, "new_password_again": NEW_PASSWORD}
    for wrong, field in (
        ({"new_password_again": "something else"}, "new_password_again"),
        ({"present_password": "wrong"}, "present_password"),
        ({"new_password": "short", "new_password_again": "short"}, "new_password"),
        ({"new_password": "a" * 20, "new_password_again": "a" * 20}, "new_password"),
    ):
        answer = client.post("/account", data=form | wrong)
        assert answer.status_code == 422
        assert f'id="{field}-error"' in answer.text
    answer = client.post("/account", data=form)
    assert "Your password is changed." in follow(client, answer, "/login?done=password")
    assert client.get("/account").headers["Location"].startswith("/login")
    answer = client.post("/login", data={"username": name[1], "password": NEW_PASSWORD, "next": "/account"})
    assert answer.headers["Location"] == "/account"


def test_another_session_is_ended(visit: Visit) -> None:
    client = visit()
    mine = client.cookies[COOKIE]
    name = re.search(r"Your account: </span>([^<]+)<", client.get("/account").text)
    assert name
    client.cookies.clear()
    client.post("/login", data={"username": name[1], "password": PASSWORD, "next": "/"})
    ending = re.findall(r'action="(/account/sessions/[^"]+/end)"', client.get("/account").text)
    assert len(ending) == 1
    assert "The session has ended." in follow(client, client.post(ending[0]), "/account?done=ended")
    other = client.cookies[COOKIE]
    client.cookies.clear()
    client.cookies.set(COOKIE, mine)
    assert client.get("/account").headers["Location"].startswith("/login")
    client.cookies.clear()
    client.cookies.set(COOKIE, other)
    client.post("/account/sessions/end")
    client.cookies.clear()
    client.cookies.set(COOKIE, other)
    assert client.get("/account").headers["Location"].startswith("/login")
