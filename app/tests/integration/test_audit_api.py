"""Reading the audit log."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db, errors
from fba_app.audit.models import AuditEntry
from fba_app.audit.record import record
from fba_app.audit.routes import router
from fba_app.users.access import current_user
from fba_app.users.models import User
from fba_app.users.principal import Permission, Principal

pytestmark = pytest.mark.anyio
START = datetime(2026, 11, 20, 12, tzinfo=UTC)
READER = UUID("3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def principal(*permissions: Permission) -> Principal:
    return Principal(READER, "reader", frozenset(permissions), "s1", "192.0.2.7")


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """A reader of a log of five entries, a minute apart."""
    db.async_engine.cache_clear()
    with db.session() as session, session.begin():
        session.execute(delete(AuditEntry))
        session.execute(delete(User).where(User.id == READER))
        session.add(User(id=READER, username="reader", password_hash=""))
        for minute, (username, action) in enumerate(
            [("ada", "login"), ("ada", "task.submit"), ("grace", "login"), ("grace", "login.failed"), (None, "cleanup")]
        ):
            at = START + timedelta(minutes=minute)
            session.add(AuditEntry(created_at=at, username=username, action=action, details={"minute": minute}))
    app = FastAPI()
    errors.install(app)
    app.include_router(router)
    app.dependency_overrides[current_user] = lambda: principal(Permission.AUDIT_READ)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        yield client
    await db.async_engine().dispose()
    db.async_engine.cache_clear()


async def minutes(client: AsyncClient, **query: Any) -> list[int]:
    response = await client.get("/api/v1/audit", params=query)
    assert response.status_code == 200, response.text
    return [each["details"]["minute"] for each in response.json()["items"]]


async def test_the_log_is_read_newest_first(client: AsyncClient) -> None:
    assert await minutes(client) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"action": "login"}, [2, 0]),
        ({"username": "grace"}, [3, 2]),
        ({"username": "grace", "action": "login"}, [2]),
        ({"username": "nobody"}, []),
        ({"since": "2026-11-20T12:02:00Z"}, [4, 3, 2]),
        ({"until": "2026-11-20T12:02:00Z"}, [1, 0]),
        ({"since": "2026-11-20T13:01:00+01:00", "until": "2026-11-20T12:03:00Z"}, [2, 1]),
        ({"since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59-14:00"}, [4, 3, 2, 1, 0]),
    ],
)
async def test_it_is_searched(client: AsyncClient, query: dict[str, str], found: list[int]) -> None:
    assert await minutes(client, **query) == found


async def test_it_comes_in_pages(client: AsyncClient) -> None:
    first = (await client.get("/api/v1/audit", params={"limit": 3})).json()
    second = (await client.get("/api/v1/audit", params={"limit": 3, "cursor": first["next"]})).json()
    assert [each["details"]["minute"] for each in first["items"] + second["items"]] == [4, 3, 2, 1, 0]
    assert second["next"] is None


@pytest.mark.parametrize(
    "query",
    [
        {"action": ""},
        {"action": "x" * 256},
        {"username": "\x00"},
        {"since": "yesterday"},
        {"since": "2026-11-20T12:00:00"},
        {"limit": "0"},
        {"limit": "201"},
        {"cursor": "nonsense"},
    ],
)
async def test_a_wrong_question_is_refused(client: AsyncClient, query: dict[str, str]) -> None:
    response = await client.get("/api/v1/audit", params=query)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"


async def test_what_is_recorded_is_read(client: AsyncClient) -> None:
    async with AsyncSession(db.async_engine()) as session:
        record(session, principal(), "file.delete", READER, name="a.txt", size=3)
        record(session, None, "file.expire")
        await session.commit()
    entries = {each["action"]: each for each in (await client.get("/api/v1/audit?limit=2")).json()["items"]}
    deleted = entries["file.delete"]
    assert (deleted["user_id"], deleted["username"], deleted["address"]) == (str(READER), "reader", "192.0.2.7")
    assert (deleted["object_id"], deleted["details"]) == (str(READER), {"name": "a.txt", "size": 3})
    expired = entries["file.expire"]
    assert [expired[name] for name in ("user_id", "username", "address", "object_id")] == [None] * 4


async def test_what_is_rolled_back_was_not_done(client: AsyncClient) -> None:
    async with AsyncSession(db.async_engine()) as session:
        record(session, principal(), "file.delete")
        await session.flush()
        await session.rollback()
    assert await minutes(client, action="file.delete") == []
