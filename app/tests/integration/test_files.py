"""Files from the upload to the cleanup."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message

from fba_app import db, errors, openapi
from fba_app.audit.models import AuditEntry
from fba_app.files import routes, service
from fba_app.files.models import File, StorageChunk
from fba_app.files.storage import ObjectMissingError, StorageUnavailableError, get_storage
from fba_app.problems import InvalidError
from fba_app.schedules.models import Schedule
from fba_app.settings import get_settings
from fba_app.tasks.context import TaskContext
from fba_app.tasks.models import State, Task
from fba_app.users.access import current_user
from fba_app.users.models import User
from fba_app.users.principal import Permission, Principal

PATH = "/api/v1/files"
LIMIT = 3 * 2**20
DATA = bytes(range(256)) * 5000
NOBODY = UUID("7f4c0f0e-0000-4000-8000-000000000000")


@pytest.fixture(params=["volume", "postgres"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("STORAGE_BACKEND", request.param)
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path))
    monkeypatch.setenv("UPLOAD_MAX_SIZE", str(LIMIT))
    get_settings.cache_clear()
    yield request.param
    for key in stored():
        get_storage().delete(key)
    get_settings.cache_clear()


def stored() -> list[str]:
    return list(get_storage().keys(datetime.now(UTC) + timedelta(hours=1)))


def someone(*permissions: Permission) -> Principal:
    user = User(id=uuid4(), username=f"user-{secrets.token_hex(4)}", password_hash="none")
    with db.session() as session, session.begin():
        session.add(user)
    return Principal(user.id, user.username, frozenset(permissions), "session", "127.0.0.1")


class Client(TestClient):
    """Asks as the user that it is told."""

    user: Principal

    def upload(self, data: bytes = DATA, name: str = "data.csv", content_type: str = "text/csv") -> Any:
        return self.post(PATH, files={"file": (name, data, content_type)})

    def uploaded(self, data: bytes = DATA, name: str = "data.csv") -> str:
        response = self.upload(data, name)
        assert response.status_code == 201, response.text
        identity: str = response.json()["id"]
        return identity


@pytest.fixture
def client() -> Iterator[Client]:
    application = FastAPI()
    errors.install(application)
    application.include_router(routes.router)
    openapi.install(application)
    with Client(application) as client:
        client.user = someone(Permission.FILES_WRITE)
        application.dependency_overrides[current_user] = lambda: client.user
        yield client
        assert client.portal is not None
        client.portal.call(db.async_engine().dispose)


def records(file_id: str) -> list[AuditEntry]:
    with db.session() as session:
        query = select(AuditEntry).where(AuditEntry.object_id == file_id).order_by(AuditEntry.created_at)
        return list(session.scalars(query))


def test_an_upload_is_kept_and_described(client: Client) -> None:
    response = client.upload(name="some/where/Zähler.csv")
    assert response.status_code == 201
    file = response.json()
    assert response.headers["Location"] == f"{PATH}/{file['id']}"
    assert {
        name: file[name] for name in ("name", "content_type", "size", "sha256", "purpose", "owner_id", "task_id")
    } == {
        "name": "Zähler.csv",
        "content_type": "text/csv",
        "size": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "purpose": "upload",
        "owner_id": str(client.user.id),
        "task_id": None,
    }
    assert client.get(response.headers["Location"]).json() == file
    assert stored() == [UUID(file["id"]).hex]
    (entry,) = records(file["id"])
    assert (entry.action, entry.user_id) == ("file.upload", client.user.id)
    assert entry.details == {"name": "Zähler.csv", "size": len(DATA)}


@pytest.mark.parametrize("path", [PATH + "/{}/content", "/static/upload/{}/data.csv"])
def test_a_download_is_an_attachment(client: Client, path: str) -> None:
    response = client.get(path.format(client.uploaded()))
    assert response.status_code == 200
    assert response.content == DATA
    assert dict(response.headers) == {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": "attachment; filename=\"data.csv\"; filename*=UTF-8''data.csv",
        "content-length": str(len(DATA)),
        "content-type": "text/csv",
        "etag": f'"{hashlib.sha256(DATA).hexdigest()}"',
        "x-content-type-options": "nosniff",
    }


def test_an_empty_file_is_a_file(client: Client) -> None:
    response = client.get(f"{PATH}/{client.uploaded(b'')}/content")
    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")


def test_a_type_that_is_not_known_to_be_harmless_is_not_said(client: Client) -> None:
    identity = client.uploaded()
    with db.session() as session, session.begin():
        session.get_one(File, UUID(identity)).content_type = "text/html"
    assert client.get(f"{PATH}/{identity}/content").headers["content-type"] == "application/octet-stream"


def test_a_range_is_sent_alone(client: Client) -> None:
    path = f"{PATH}/{client.uploaded()}/content"
    response = client.get(path, headers={"Range": f"bytes={2**20 - 5}-{2**20 + 4}"})
    assert response.status_code == 206
    assert response.content == DATA[2**20 - 5 : 2**20 + 5]
    assert response.headers["Content-Range"] == f"bytes {2**20 - 5}-{2**20 + 4}/{len(DATA)}"
    assert response.headers["Content-Length"] == "10"
    response = client.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (response.status_code, response.content) == (200, DATA)


def test_a_range_beyond_the_end_is_refused(client: Client) -> None:
    response = client.get(f"{PATH}/{client.uploaded()}/content", headers={"Range": f"bytes={len(DATA)}-"})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(DATA)}"
    assert response.json()["code"] == "range_not_satisfiable"


def test_nginx_sends_what_it_can_reach(client: Client, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_ACCEL_PREFIX", "/_upload/")
    get_settings.cache_clear()
    identity = client.uploaded()
    response = client.get(f"{PATH}/{identity}/content", headers={"Range": "bytes=0-9"})
    if backend == "postgres":
        assert response.content == DATA[:10]
        return
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["X-Accel-Redirect"] == f"/_upload/{UUID(identity).hex}"
    assert response.headers["Content-Type"] == "text/csv"
    assert response.headers["Content-Disposition"].startswith("attachment")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({}, 415),
        ({"json": {}}, 415),
        ({"data": {"file": "no file"}}, 415),
        ({"files": {"other": ("a.csv", b"")}}, 422),
        ({"files": [("file", ("a.csv", b"")), ("file", ("b.csv", b""))]}, 422),
        ({"files": {"file": ("a.csv", b"")}, "data": {"other": "1"}}, 422),
        ({"files": {"file": ("a.html", b"", "text/html")}}, 415),
        ({"files": {"file": ("a.csv", b"", "text/html")}}, 415),
        ({"files": {"file": ("..", b"", "text/csv")}}, 422),
        ({"content": b"rubbish", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"files": {"file": ("a.csv", b"x" * (LIMIT + 1))}}, 413),
    ],
)
def test_what_is_no_upload_is_refused_and_not_kept(client: Client, request_: dict[str, Any], status: int) -> None:
    response = client.post(PATH, **request_)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert stored() == []
    assert client.get(PATH).json() == {"items": [], "next": None}


def test_a_file_may_be_as_large_as_the_limit(client: Client) -> None:
    client.uploaded(b"x" * LIMIT)


def test_who_has_the_quota_together_uploads_no_more(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_QUOTA", "2048")
    get_settings.cache_clear()
    file = client.uploaded(b"x" * 2048)
    response = client.post(PATH, files={"file": ("a.csv", b"x")})
    assert response.status_code == 409
    assert "2048" in response.json()["detail"]
    assert client.delete(f"{PATH}/{file}").status_code == 204
    client.uploaded(b"x")


HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'


def send(client: Client, messages: Iterator[Message]) -> list[Message]:
    """Send a body piece by piece, and return the answer."""
    answer: list[Message] = []

    async def receive() -> Message:
        return next(messages)

    async def answered(message: Message) -> None:
        answer.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
    }
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, answered)
    return answer


def body(*pieces: bytes) -> Iterator[Message]:
    for piece in pieces:
        yield {"type": "http.request", "body": piece, "more_body": True}


def test_too_much_is_refused_before_its_end(client: Client) -> None:
    received = 0

    def endless() -> Iterator[Message]:
        nonlocal received
        yield from body(HEAD)
        while True:
            received += 2**16
            yield from body(b"x" * 2**16)

    assert send(client, endless())[0]["status"] == 413
    # Some may be on its way into the storage.
    assert received <= LIMIT + 2**20
    assert stored() == []


def test_a_client_that_leaves_in_the_middle_leaves_nothing(client: Client) -> None:
    def leaving() -> Iterator[Message]:
        yield from body(HEAD, *[b"x" * 2**16] * 40)
        yield {"type": "http.disconnect"}

    assert send(client, leaving())[0]["status"] == 400
    assert stored() == []
    assert client.get(PATH).json()["items"] == []


def test_a_storage_that_is_away_is_no_fault_of_the_client(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = client.uploaded()

    async def put(*_: object) -> None:
        raise StorageUnavailableError("away")

    async def get(*_: object) -> Any:
        raise StorageUnavailableError("away")
        yield b""

    monkeypatch.setattr(type(get_storage()), "put_async", put)
    monkeypatch.setattr(type(get_storage()), "get_async", get)
    for response in (client.upload(), client.get(f"{PATH}/{identity}/content")):
        assert response.status_code == 503
        assert response.headers["Retry-After"]


def test_lost_bytes_are_told(client: Client) -> None:
    identity = client.uploaded()
    get_storage().delete(UUID(identity).hex)
    assert client.get(f"{PATH}/{identity}/content").status_code == 404


def test_files_are_listed_in_pages_of_ones_own(client: Client) -> None:
    other = client.uploaded()
    client.user = someone(Permission.FILES_WRITE)
    mine = [client.uploaded(name=f"{number}.csv") for number in range(3)]
    first = client.get(PATH, params={"limit": 2}).json()
    rest = client.get(PATH, params={"limit": 2, "cursor": first["next"]}).json()
    assert [file["id"] for file in first["items"] + rest["items"]] == mine[::-1]
    assert rest["next"] is None
    assert client.get(PATH, params={"purpose": "report"}).json()["items"] == []
    assert len(client.get(PATH, params={"purpose": "upload"}).json()["items"]) == 3
    assert client.get(PATH, params={"everyone": True}).status_code == 403
    client.user = someone(Permission.FILES_WRITE, Permission.FILES_MANAGE)
    assert client.get(PATH).json()["items"] == []
    everyones = [file["id"] for file in client.get(PATH, params={"everyone": True, "limit": 200}).json()["items"]]
    assert {other, *mine} <= set(everyones)


def test_others_files_are_not_there(client: Client) -> None:
    identity = client.uploaded()
    client.user = someone(Permission.FILES_WRITE)
    for path in (f"{PATH}/{identity}", f"{PATH}/{identity}/content", f"/static/upload/{identity}/data.csv"):
        assert client.get(path).status_code == 404
    assert client.delete(f"{PATH}/{identity}").status_code == 404
    client.user = someone(Permission.FILES_WRITE, Permission.FILES_MANAGE)
    assert client.get(f"{PATH}/{identity}/content").content == DATA


def test_who_may_not_write_files_may_nothing(client: Client) -> None:
    identity = client.uploaded()
    client.user = replace(client.user, permissions=frozenset({Permission.TASKS_SUBMIT}))
    assert client.upload().status_code == 403
    for path in (PATH, f"{PATH}/{identity}", f"{PATH}/{identity}/content", f"/static/upload/{identity}/data.csv"):
        assert client.get(path).status_code == 403
    assert client.delete(f"{PATH}/{identity}").status_code == 403


def test_a_deleted_file_is_gone(client: Client) -> None:
    identity = client.uploaded()
    assert client.delete(f"{PATH}/{identity}").status_code == 204
    assert client.get(f"{PATH}/{identity}").status_code == 404
    assert client.delete(f"{PATH}/{identity}").status_code == 404
    assert stored() == []
    assert [entry.action for entry in records(identity)] == ["file.upload", "file.delete"]


def test_bytes_that_cannot_be_deleted_now_are_left_to_the_cleanup(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = client.uploaded()

    async def delete(*_: object) -> None:
        raise StorageUnavailableError("away")

    monkeypatch.setattr(type(get_storage()), "delete_async", delete)
    assert client.delete(f"{PATH}/{identity}").status_code == 204
    assert client.get(f"{PATH}/{identity}").status_code == 404
    assert stored() == [UUID(identity).hex]


def test_the_document_tells_a_file_from_text(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    upload = paths[PATH]["post"]
    form = upload["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"] == {"file": {"type": "string", "format": "binary"}}
    assert form["required"] == ["file"]
    assert {"400", "401", "403", "413", "415", "422", "503"} <= set(upload["responses"])
    assert upload["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].endswith("/FileView")
    assert "Location" in upload["responses"]["201"]["headers"]
    assert "text/csv" in paths[f"{PATH}/{{file_id}}/content"]["get"]["responses"]["206"]["content"]
    assert not [path for path in paths if path.startswith("/static")]


def test_a_task_may_use_what_its_user_may_see(client: Client) -> None:
    identity = UUID(client.uploaded())
    location = ("body", "arguments", "file_id")

    async def may_use(user: Principal, file_id: UUID) -> None:
        async with AsyncSession(db.async_engine()) as session:
            await service.may_use(session, user, file_id, location)

    assert client.portal is not None
    client.portal.call(may_use, client.user, identity)
    client.portal.call(may_use, someone(Permission.FILES_MANAGE), identity)
    for user, file_id in ((someone(Permission.FILES_WRITE), identity), (client.user, NOBODY)):
        with pytest.raises(InvalidError) as raised:
            client.portal.call(may_use, user, file_id)
        assert raised.value.errors is not None
        assert raised.value.errors[0].location == list(location)


def task(state: State = State.RUNNING, submitted_by: UUID | None = None, **arguments: Any) -> UUID:
    row = Task(id=uuid4(), kind="report", queue="cpu", state=state, arguments=arguments, submitted_by=submitted_by)
    with db.session() as session, session.begin():
        session.add(row)
    return row.id


def test_a_task_reads_a_file(client: Client) -> None:
    identity = UUID(client.uploaded())
    with db.session() as session:
        file = service.open_file(session, identity)
        with pytest.raises(ObjectMissingError):
            service.open_file(session, NOBODY)
    assert b"".join(get_storage().get(file.key)) == DATA


def test_a_tasks_file_appears_when_it_succeeds() -> None:
    user = someone()
    task_id = task(submitted_by=user.id)
    context = TaskContext(task_id, submitted_by=user.id)
    file = service.store_file(context, "report.pdf", "application/pdf", "report", iter([b"some", b"thing"]))
    assert b"".join(get_storage().get(file.key)) == b"something"
    with db.session() as session:
        assert session.get(File, file.id) is None
    # The user goes before the task ends: that must not keep it from succeeding.
    with db.session() as session, session.begin():
        session.delete(session.get_one(User, user.id))
    (insert,) = context.on_success
    with db.session() as session:
        insert(session)
        session.rollback()
    # The transaction may be tried again.
    with db.session() as session, session.begin():
        insert(session)
    with db.session() as session:
        row = session.get_one(File, file.id)
    assert (row.name, row.size, row.purpose, row.owner_id, row.task_id) == ("report.pdf", 9, "report", None, task_id)
    assert row.sha256 == hashlib.sha256(b"something").hexdigest()


def test_a_tasks_file_belongs_to_its_user() -> None:
    user = someone()
    context = TaskContext(task(submitted_by=user.id), submitted_by=user.id)
    file = service.store_file(context, "report.pdf", "application/pdf", "report", [b"some"])
    with db.session() as session, session.begin():
        context.on_success[0](session)
    with db.session() as session:
        assert session.get_one(File, file.id).owner_id == user.id


def old_file(days: int = 31) -> UUID:
    """A report as it would be after so many days."""
    context = TaskContext(task(State.SUCCEEDED))
    file = service.store_file(context, "report.pdf", "application/pdf", "report", [b"some"])
    file.created_at = datetime.now(UTC) - timedelta(days=days)
    with db.session() as session, session.begin():
        context.on_success[0](session)
    return file.id


def exists(file_id: UUID) -> bool:
    with db.session() as session:
        row = session.get(File, file_id) is not None
    assert row == (file_id.hex in stored())
    return row


@pytest.fixture
def _no_files() -> None:
    with db.session() as session, session.begin():
        for file in session.scalars(select(File)):
            session.delete(file)


@pytest.mark.usefixtures("_no_files")
def test_old_files_go_unless_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BATCH", 2)
    old, young, needed, was_needed, scheduled = old_file(), old_file(29), old_file(), old_file(), old_file()
    more = [old_file() for _ in range(4)]
    task(State.RETRYING, attachments=[{"deep": str(needed)}])
    task(State.FAILED, file_id=str(was_needed))
    with db.session() as session, session.begin():
        session.add(
            Schedule(
                name=f"nightly-{secrets.token_hex(4)}",
                kind="pipeline",
                arguments={"file_id": str(scheduled)},
                every=60,
                enabled=False,
            )
        )
    assert service.delete_expired() == 2 + len(more)
    assert [exists(file) for file in (old, young, needed, was_needed, scheduled)] == [False, True, True, False, True]
    assert not any(exists(file) for file in more)
    assert service.delete_expired() == 0


@pytest.mark.usefixtures("_no_files")
def test_bytes_of_no_file_go_after_a_day(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BATCH", 2)
    kept = old_file(1).hex
    orphans = [uuid4().hex for _ in range(3)]
    new, others = uuid4().hex, "someone-elses.txt"
    for name in (*orphans, new, others):
        get_storage().put(name, [b"some"])
    if backend == "volume":
        # As a crash in mid-upload leaves it.
        unfinished = f"{uuid4().hex}#1"
        (tmp_path / unfinished).write_bytes(b"some")
        orphans.append(unfinished)
    long_ago = datetime.now(UTC) - timedelta(days=1, minutes=1)
    for name in (*orphans, others, kept):
        if backend == "volume":
            os.utime(tmp_path / name, (long_ago.timestamp(), long_ago.timestamp()))
        else:
            with db.session() as session, session.begin():
                session.execute(update(StorageChunk).where(StorageChunk.key == name).values(created_at=long_ago))
    assert service.delete_expired() == len(orphans)
    assert set(stored()) == {others, kept, new}
