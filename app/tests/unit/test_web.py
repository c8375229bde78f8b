"""The pages, without the services: what they say then, who may see them, and what their forms make of input."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pytest
from fastapi import Response
from fastapi.testclient import TestClient
from pydantic import ValidationError

from fba_app.health import routes as health
from fba_app.main import app
from fba_app.problems import ConflictError, InvalidError
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE, KINDS
from fba_app.tasks.relay import Queue, relay
from fba_app.users.access import COOKIE, current_user
from fba_app.users.principal import Permission, Principal
from fba_app.web import kinds, render
from fba_app.web.forms import Form
from fba_app.web.pages import local
from fba_app.web.schedules import _read

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def visitor(client: TestClient) -> Iterator[Any]:
    """A function that gives the client, as a user who has the permissions that it is called with."""
    client.follow_redirects = False

    def visitor(*permissions: Permission) -> TestClient:
        user = Principal(uuid4(), "ada <3", frozenset(permissions), "session", "127.0.0.1")
        app.dependency_overrides[current_user] = lambda: user
        return client

    yield visitor
    app.dependency_overrides.clear()


def test_every_template_is_well_formed() -> None:
    environment = render._environment
    for name in environment.list_templates():
        environment.get_template(name)


def test_no_template_holds_what_the_content_policy_forbids() -> None:
    for path in (render.HERE / "templates").rglob("*.html"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]* src=)|javascript:", source), path


@pytest.mark.parametrize("path", ["/", "/files?everyone=1", "/tasks/7f4c0f0e-0000-4000-8000-000000000000", "/stack"])
def test_who_is_not_logged_in_is_sent_there_and_back(client: TestClient, path: str) -> None:
    response = client.get(path, follow_redirects=False)
    assert response.status_code == HTTPStatus.SEE_OTHER
    asked = client.get(response.headers["Location"])
    assert asked.status_code == HTTPStatus.OK
    assert f'name="next" value="{path}"' in asked.text.replace("&#34;", '"')


def test_an_api_still_answers_as_an_api(client: TestClient) -> None:
    response = client.get("/api/v1/tasks", headers={"Accept": "text/html"})
    assert response.status_code == HTTPStatus.UNAUTHORIZED
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/", "/"),
        ("/tasks/1?a=b#c", "/tasks/1?a=b#c"),
        (None, "/"),
        ("", "/"),
        ("//elsewhere.example", "/"),
        ("/\\elsewhere.example", "/"),
        ("/\t/elsewhere.example", "/"),
        ("/a\r\nSet-Cookie: a=b", "/"),
        ("https://elsewhere.example", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_only_addresses_of_this_site_are_followed(address: str | None, expected: str) -> None:
    assert local(address) == expected


def test_a_service_that_is_away_gives_a_page_that_says_so(client: TestClient) -> None:
    client.cookies.set(COOKIE, "some.session")
    response = client.get("/files")
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert response.headers["Content-Type"].startswith("text/html")
    assert response.headers["Retry-After"]
    assert response.headers["Cache-Control"] == "no-store"
    assert "The session store is unavailable." in response.text
    assert 'href="/files">Try again' in response.text


def test_another_site_cannot_log_anyone_in(client: TestClient) -> None:
    form = {"username": "mallory", "password": "a password of mine"}
    response = client.post("/login", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == HTTPStatus.FORBIDDEN
    assert response.headers["Content-Type"].startswith("text/html")
    assert COOKIE not in response.cookies


def test_a_form_with_a_fault_comes_back_with_what_was_put_in_but_no_password(client: TestClient) -> None:
    form = {"username": '"><script>alert(1)</script>', "password": ""}
    response = client.post("/login", data=form, headers=SAME_SITE)
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "<title>Error: Log in" in response.text
    assert "<script>alert" not in response.text
    assert 'value="&#34;&gt;&lt;script&gt;' in response.text
    assert re.search(r'id="password-error">.*Fill this in\.', response.text)
    assert re.search(
        r'<input type="password" id="password"[^>]* aria-describedby=" password-error" aria-invalid="true"',
        response.text,
    )
    assert '<a href="#password">Password</a>: Fill this in.' in response.text


def test_a_page_that_one_may_not_see_says_so_and_shows_the_way_to_others(visitor: Any) -> None:
    response = visitor(Permission.FILES_WRITE).get("/stack")
    assert response.status_code == HTTPStatus.FORBIDDEN
    assert "This needs the permission stack:read." in response.text
    menu = re.findall(r'<a href="([^"]+)"', response.text.partition('aria-label="Main"')[2].partition("</nav>")[0])
    assert menu == ["/files"]
    assert "ada &lt;3" in response.text
    assert "/flower/" not in response.text


def test_who_may_submit_nothing_begins_elsewhere(visitor: Any) -> None:
    assert visitor(Permission.STACK_READ).get("/").headers["Location"] == "/stack"
    assert visitor().get("/").headers["Location"] == "/account"


def test_a_broken_address_gives_a_page(visitor: Any) -> None:
    response = visitor(Permission.TASKS_SUBMIT).get("/tasks/what")
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert response.headers["Content-Type"].startswith("text/html")


def test_what_goes_wrong_unexpectedly_is_logged_and_not_shown(
    visitor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(health, "states", broken)
    response = visitor(Permission.STACK_READ).get("/stack")
    assert response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert "the secret reason" not in response.text
    assert "the secret reason" in caplog.text


def test_the_stack_is_shown_as_it_is(visitor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def background(_: Response) -> health.Background:
        ages = {"beat": ("ok", 2.0), "worker:io": ("stale", 400.0), "worker:cpu": ("stale", None)}
        pulses = {name: health.Pulse.model_validate({"state": s, "age_seconds": a}) for name, (s, a) in ages.items()}
        return health.Background(status="stale", checks=pulses)

    async def states() -> dict[str, str]:
        return {"postgres": "ok", "redis": "timeout", "rabbitmq": "unavailable"}

    monkeypatch.setattr(health, "background", background)
    monkeypatch.setattr(health, "states", states)
    monkeypatch.setattr(relay, "queues", (Queue(IO_QUEUE, 12345, 2), Queue(CPU_QUEUE, 0, 1)))
    monkeypatch.setattr(type(relay), "available", property(lambda _: True))
    shown = visitor(Permission.STACK_READ).get("/stack").text
    rows = {re.sub(r"<[^>]+>", " ", row).strip() for row in re.findall(r"<tr><th scope=\"row\">.*?</tr>", shown)}
    rows = {" ".join(row.split()) for row in rows}
    assert rows == {
        "Beat, for schedules Working 2 s ago",
        "Workers of io Silent 6 min 40 s ago",
        "Workers of cpu Silent never",
        "io 12,345 2",
        "cpu 0 1",
        "PostgreSQL Working",
        "Redis No answer",
        "RabbitMQ Unavailable",
    }


UPLOAD = str(uuid4())


@pytest.mark.parametrize(
    ("kind", "values", "arguments"),
    [
        ("sleep", {"duration": ["5"]}, {"duration": 5}),
        (
            "email",
            {"to": ["a@example.com, b@example.com"], "cc": [" "], "subject": ["Hi"], "text": ["One\nTwo"]},
            {"to": ["a@example.com", "b@example.com"], "subject": "Hi", "text": "One\nTwo"},
        ),
        (
            "report",
            {"title": ["T"], "days": ["7"], "format": ["pdf"]},
            {"title": "T", "days": 7, "format": "pdf", "scope": "own"},
        ),
        ("inference", {"sample": ["1"]}, {"images": [kinds.SAMPLES[1]["image"]]}),
        ("inference", {"pixel": ["0", "63"]}, {"images": [[16, *[0] * 62, 16]]}),
        (
            "pipeline",
            {"file_id": [UPLOAD], "delimiter": ["tab"], "group_by": ["city"], "value": [""]},
            {"file_id": UPLOAD, "delimiter": "\t", "group_by": "city"},
        ),
    ],
)
def test_a_form_holds_arguments_and_gives_them_back(
    kind: str, values: dict[str, list[str]], arguments: dict[str, Any]
) -> None:
    shape, model = kinds.page_of(kind), KINDS[kind].arguments
    wanted = model.model_validate(arguments)
    assert model.model_validate(shape.read(Form(values))) == wanted
    again = kinds.filled(KINDS[kind], wanted.model_dump(mode="json"))
    assert kinds.posted_page(kind, again) is shape
    assert model.model_validate(shape.read(again)) == wanted


def test_arguments_that_do_not_fit_in_the_form_are_shown_as_json() -> None:
    arguments = {
        "to": ["a@example.com"],
        "cc": [],
        "bcc": [],
        "subject": "S",
        "text": "T",
        "html": "<p>",
        "attachments": [],
    }
    form = kinds.filled(KINDS["email"], arguments)
    shape = kinds.posted_page("email", form)
    assert shape is kinds.JSON_PAGE
    assert shape.read(form) == arguments


def test_a_kind_without_a_page_begins_with_the_examples_of_its_arguments() -> None:
    assert kinds.JSON_PAGE.read(kinds.JSON_PAGE.start(KINDS["sleep"])) == {"duration": 5}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    form = Form({"arguments": [text]})
    kinds.JSON_PAGE.read(form)
    assert form.errors == {"arguments": "This is not JSON."}


def test_a_task_of_an_earlier_version_can_still_be_shown() -> None:
    assert kinds.shape_of("sleep", {"seconds": 5}) == (kinds.JSON_PAGE, [])
    assert kinds.shape_of("gone", {}) == (kinds.JSON_PAGE, [])
    assert kinds.JSON_PAGE.title("gone", {}, {}) == "Gone"


@pytest.mark.parametrize(
    ("kind", "values", "errors"),
    [
        ("sleep", {}, {"duration": "Fill this in."}),
        ("sleep", {"duration": ["soon"]}, {"duration": "Enter a whole number."}),
        ("sleep", {"duration": ["1.5"]}, {"duration": "Enter a whole number."}),
        ("sleep", {"duration": ["301"]}, {"duration": "This should be less than or equal to 300."}),
        (
            "email",
            {"to": ["nobody"]},
            {"to": "“nobody” is not in the right form.", "subject": "Fill this in.", "text": "Fill this in."},
        ),
        ("inference", {}, {"images": "Fill this in."}),
        ("inference", {"pixel": ["64"], "sample": ["-1"]}, {"images": "Fill this in."}),
        ("pipeline", {"delimiter": [","]}, {"file_id": "Fill this in."}),
    ],
)
def test_faults_are_told_beside_their_fields(kind: str, values: dict[str, list[str]], errors: dict[str, str]) -> None:
    form = Form(values)
    with pytest.raises(ValidationError) as refused:
        KINDS[kind].arguments.model_validate(kinds.page_of(kind).read(form))
    assert form.refuse(refused.value, kind) == HTTPStatus.UNPROCESSABLE_ENTITY
    assert form.errors == errors


def test_what_the_service_refuses_is_told_too() -> None:
    form = Form()
    assert form.refuse(InvalidError("There is no such file.", ("body", "arguments", "file_id"))) == 422
    assert form.errors == {"file_id": "There is no such file."}
    form = Form()
    assert form.refuse(ConflictError("There is a schedule like that already.")) == 409
    assert (form.errors, form.problem) == ({}, "There is a schedule like that already.")


def test_a_schedule_needs_one_of_its_two_rhythms() -> None:
    values = {"name": ["Nightly"], "duration": ["5"], "enabled": ["yes"]}
    both = Form(values | {"every": ["60"], "crontab": ["* * * * *"]})
    assert _read("sleep", both) is None
    assert both.problem
    form = Form(values | {"crontab": ["30  3 * * *"]})
    asked = _read("sleep", form)
    assert asked
    assert (asked.name, asked.crontab, asked.every, asked.enabled) == ("Nightly", "30 3 * * *", None, True)
    assert asked.task.arguments.model_dump() == {"duration": 5}


def test_a_schedule_tells_faults_of_its_own_and_of_its_task() -> None:
    form = Form({"duration": ["x"], "every": ["1"], "crontab": [""]})
    assert _read("sleep", form) is None
    assert form.errors == {
        "name": "Fill this in.",
        "duration": "Enter a whole number.",
        "every": "This should be greater than or equal to 10.",
    }


@pytest.mark.parametrize(
    ("release", "address"),
    [
        ("0123456789ab", r"/static/style\.css\?v=0123456789ab"),
        ("2.1-rc_1", r"/static/style\.css\?v=2\.1-rc_1"),
        # A release without a name, and none: what is in the file says whether it is the same
        ("", r"/static/style\.css\?v=[0-9a-f]{12}"),
        (None, r"/static/style\.css\?v=[0-9a-f]{12}"),
    ],
)
def test_a_page_asks_for_the_files_of_its_own_release(
    release: str | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if release is None:
        monkeypatch.delenv("FBA_RELEASE", raising=False)
    else:
        monkeypatch.setenv("FBA_RELEASE", release)
    # Once per process, which is of one release
    assert re.fullmatch(address, render._asset.__wrapped__("style.css"))


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "less than 0.1 s"),
        (0.44, "0.4 s"),
        (5, "5 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, written: str) -> None:
    assert render.duration(seconds) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (120 * 2**20, "120 MiB"), (2**31, "2.0 GiB")],
)
def test_sizes(number: int, written: str) -> None:
    assert render.size(number) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "\N{EN DASH}"),
        ("nan", "nan"),
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (1234.5678, "1,234.5678"),
        (1e-7, "1e-07"),
        (1e20, "1e+20"),
        (0.0, "0"),
    ],
)
def test_figures(value: Any, written: str) -> None:
    assert render.figure(value) == written


@pytest.mark.parametrize(
    ("agent", "written"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
            "Chrome on Linux",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 Version/18.0 Safari/604.1",
            "Safari on iPhone",
        ),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "A program without a name"),
    ],
)
def test_programs(agent: str, written: str) -> None:
    assert render.program(agent) == written


def test_times_are_those_of_the_settings_and_exact_for_the_script() -> None:
    written = render.when(datetime(2026, 11, 20, 12, 5, tzinfo=UTC))
    assert written == '<time datetime="2026-11-20T12:05:00+00:00">20 Nov 2026, 12:05 UTC</time>'
