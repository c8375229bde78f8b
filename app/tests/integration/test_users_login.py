"""Logging in, staying in, and being thrown out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI, Request, Response
from httpx2 import ASGITransport, AsyncClient
from httpx2 import Response as Answer
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import delete, select, update

from fba_app import cache, db, errors
from fba_app.audit.models import AuditEntry
from fba_app.dependencies import Session
from fba_app.problems import UnavailableError
from fba_app.settings import get_settings
from fba_app.users import access, attempts, passwords, routes, service, sessions
from fba_app.users.models import Role, User
from fba_app.users.principal import Permission, Principal

pytestmark = pytest.mark.anyio
PASSWORD = "correct horse battery"
NEW_PASSWORD = "staple of the twelve moons"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def application() -> FastAPI:
    """The routes, and two as a web page would have them."""
    app = FastAPI()
    errors.install(app)
    app.include_router(routes.router)

    @app.post("/page/login")
    async def log_in(request: Request, response: Response, session: Session, username: str) -> None:
        access.set_cookie(response, request, (await service.log_in(session, username, PASSWORD, request)).cookie)

    @app.get("/page/who")
    async def who(user: Annotated[Principal | None, Depends(access.optional_user)]) -> str | None:
        return user.username if user else None

    return app


NewClient = Callable[..., AsyncClient]


@pytest.fixture
async def new_client() -> AsyncIterator[NewClient]:
    """Makes clients, each with cookies of its own, of one application."""
    cache.client.cache_clear()
    db.async_engine.cache_clear()
    app = application()
    clients: list[AsyncClient] = []

    def make(address: str = "203.0.113.5") -> AsyncClient:
        transport = ASGITransport(app, client=(address, 50000))
        clients.append(AsyncClient(transport=transport, base_url="http://testserver"))
        return clients[-1]

    for key in cache.sync_client().scan_iter("attempts:*"):
        cache.sync_client().delete(key)
    yield make
    for client in clients:
        await client.aclose()
    await cache.client().aclose()
    await db.async_engine().dispose()
    cache.client.cache_clear()
    db.async_engine.cache_clear()


@pytest.fixture
def client(new_client: NewClient) -> AsyncClient:
    return new_client()


def new_user() -> str:
    """Make a user who may submit tasks, and return the name."""
    name = f"ada-{uuid4().hex[:8]}"
    with db.session() as session, session.begin():
        role = Role(name=f"r{uuid4().hex[:8]}", permissions=["tasks:submit", "of:another-version"])
        session.add(User(username=name, password_hash=passwords.hash_now(PASSWORD), roles=[role]))
    return name


@pytest.fixture
def user() -> str:
    return new_user()


def change(username: str, **values: Any) -> None:
    with db.session() as session, session.begin():
        session.execute(update(User).where(User.username == username).values(**values))


def audited(username: str) -> list[str]:
    with db.session() as session:
        query = select(AuditEntry.action).where(AuditEntry.username == username).order_by(AuditEntry.created_at)
        return list(session.scalars(query))


def limit(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    settings = get_settings().model_copy(update=values)
    monkeypatch.setattr(attempts, "get_settings", lambda: settings)


async def log_in(client: AsyncClient, username: str, password: str = PASSWORD) -> Answer:
    return await client.post("/api/v1/auth/login", json={"username": username, "password": password})


async def tokens(client: AsyncClient, username: str) -> dict[str, Any]:
    response = await log_in(client, username)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def bearer(body: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {body['access_token']}"}


async def me(client: AsyncClient, body: dict[str, Any]) -> Answer:
    return await client.get("/api/v1/auth/me", headers=bearer(body))


async def refresh(client: AsyncClient, token: str) -> Answer:
    return await client.post("/api/v1/auth/refresh", json={"refresh_token": token})


async def test_a_login_lets_in(client: AsyncClient, user: str) -> None:
    response = await log_in(client, user.upper())
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    assert (body["token_type"], body["expires_in"]) == ("bearer", get_settings().access_token_lifetime)
    response = await me(client, body)
    assert response.status_code == 200
    assert response.json()["username"] == user
    assert response.json()["permissions"] == ["tasks:submit"]
    assert response.json()["last_login_at"] is not None
    assert audited(user) == ["login"]


async def test_nobody_learns_why_a_login_fails(client: AsyncClient, user: str) -> None:
    wrong = await log_in(client, user, "another password")
    unknown = await log_in(client, "nobody-of-that-name")
    change(user, disabled=True)
    disabled = await log_in(client, user)
    assert wrong.status_code == 401
    assert wrong.headers["WWW-Authenticate"] == "Bearer"
    assert wrong.headers["Content-Type"] == "application/problem+json"
    assert wrong.json() == unknown.json() == disabled.json()
    assert audited(user) == ["login.failed", "login.failed"]
    assert "login.failed" in audited("nobody-of-that-name")


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer " + "W1tb" * 500 + ".e30."]
)
async def test_without_a_token_there_is_nothing_to_see(client: AsyncClient, authorization: str) -> None:
    response = await client.get("/api/v1/auth/me", headers={"Authorization": authorization})
    assert response.status_code == 401


async def test_logging_out_ends_the_session_at_once(client: AsyncClient, user: str) -> None:
    first, second = await tokens(client, user), await tokens(client, user)
    assert (await client.post("/api/v1/auth/logout", headers=bearer(first))).status_code == 204
    assert (await me(client, first)).status_code == 401
    assert (await refresh(client, first["refresh_token"])).status_code == 401
    assert (await me(client, second)).status_code == 200
    assert audited(user)[-1] == "logout"


async def test_a_refresh_token_is_exchanged(client: AsyncClient, user: str) -> None:
    first = await tokens(client, user)
    response = await refresh(client, first["refresh_token"])
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    second = response.json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await me(client, second)).status_code == 200
    assert (await refresh(client, second["refresh_token"])).status_code == 200


async def test_a_refresh_token_presented_again_ends_the_session(client: AsyncClient, user: str) -> None:
    first = await tokens(client, user)
    second = (await refresh(client, first["refresh_token"])).json()
    assert (await refresh(client, first["refresh_token"])).status_code == 401
    assert (await refresh(client, second["refresh_token"])).status_code == 401
    assert (await me(client, second)).status_code == 401
    assert audited(user) == ["login", "session.reused"]


async def test_a_refresh_token_is_exchanged_once_however_many_ask(client: AsyncClient, user: str) -> None:
    first = await tokens(client, user)
    answers = await asyncio.gather(*(refresh(client, first["refresh_token"]) for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [200, 401, 401, 401, 401]
    assert (await me(client, first)).status_code == 401


async def test_other_tokens_are_not_exchanged_and_end_nothing(client: AsyncClient, user: str) -> None:
    body = await tokens(client, user)
    for token in (body["access_token"], "nonsense", body["refresh_token"][:-4]):
        assert (await refresh(client, token)).status_code == 401
    assert (await refresh(client, body["refresh_token"])).status_code == 200


async def test_a_refresh_token_outlasts_a_database_that_is_away(
    client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await tokens(client, user)

    async def away(*_: object) -> None:
        raise UnavailableError("database")

    with monkeypatch.context() as broken:
        broken.setattr(access, "principal", away)
        assert (await refresh(client, body["refresh_token"])).status_code == 503
    assert (await refresh(client, body["refresh_token"])).status_code == 200


async def test_a_session_lasts_as_long_as_it_is_used(client: AsyncClient, user: str) -> None:
    body = await tokens(client, user)
    session_id = sessions.read(body["access_token"], "access")
    key = f"session:{session_id}"
    lifetime = get_settings().session_lifetime
    assert lifetime - 10 < await cache.client().ttl(key) <= lifetime
    await cache.client().expire(key, 100)
    assert (await me(client, body)).status_code == 200
    assert await cache.client().ttl(key) > lifetime - 10
    await cache.client().delete(key)
    assert (await me(client, body)).status_code == 401
    assert await cache.client().exists(key) == 0


async def test_redis_learns_no_secret(client: AsyncClient, user: str) -> None:
    body = await tokens(client, user)
    await client.post("/page/login", params={"username": user})
    secret = client.cookies["fba_session"].partition(".")[2]
    kept = ""
    async for key in cache.client().scan_iter("session:*"):
        kept += str(await cache.client().hgetall(key))
    assert body["refresh_token"] not in kept
    assert secret not in kept


async def test_a_user_has_so_many_sessions(user: str, client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    bodies = [await tokens(client, user) for _ in range(3)]
    codes = [(await me(client, body)).status_code for body in bodies]
    assert codes.count(200) == 2
    assert codes[-1] == 200


async def test_sessions_are_listed_and_ended_one_by_one(new_client: NewClient, user: str) -> None:
    here, there = new_client("203.0.113.5"), new_client("198.51.100.9")
    mine, other = await tokens(here, user), await tokens(there, user)
    listed = (await here.get("/api/v1/auth/me/sessions", headers=bearer(mine))).json()["items"]
    assert {(each["address"], each["current"]) for each in listed} == {("203.0.113.5", True), ("198.51.100.9", False)}
    assert all(each["user_agent"].startswith("python-httpx") for each in listed)
    found = next(each["id"] for each in listed if not each["current"])
    url = f"/api/v1/auth/me/sessions/{found}"
    assert (await here.delete(url, headers=bearer(mine))).status_code == 204
    assert (await here.delete(url, headers=bearer(mine))).status_code == 404
    assert (await me(there, other)).status_code == 401
    assert (await me(here, mine)).status_code == 200


async def test_nobody_ends_a_session_of_another(client: AsyncClient, user: str) -> None:
    body, thief = await tokens(client, user), await tokens(client, new_user())
    session_id = sessions.read(body["access_token"], "access")
    response = await client.delete(f"/api/v1/auth/me/sessions/{session_id}", headers=bearer(thief))
    assert response.status_code == 404
    assert (await me(client, body)).status_code == 200


async def test_all_sessions_are_ended(client: AsyncClient, user: str) -> None:
    bodies = [await tokens(client, user) for _ in range(3)]
    assert (await client.delete("/api/v1/auth/me/sessions", headers=bearer(bodies[0]))).status_code == 204
    assert [(await me(client, body)).status_code for body in bodies] == [401, 401, 401]


async def test_a_disabled_user_is_out_at_once(client: AsyncClient, user: str) -> None:
    body = await tokens(client, user)
    change(user, disabled=True)
    assert (await me(client, body)).status_code == 401
    assert (await refresh(client, body["refresh_token"])).status_code == 401


async def test_a_deleted_user_is_out_at_once(client: AsyncClient, user: str) -> None:
    body = await tokens(client, user)
    with db.session() as session, session.begin():
        session.execute(delete(User).where(User.username == user))
    assert (await me(client, body)).status_code == 401
    with db.session() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.username == user)).one()
        assert entry.user_id is None


async def put_password(client: AsyncClient, body: dict[str, Any], present: str, new: str) -> int:
    response = await client.put(
        "/api/v1/auth/me/password",
        json={"present_password": present, "new_password": new},
        headers=bearer(body),
    )
    return response.status_code


async def test_a_changed_password_ends_all_sessions(client: AsyncClient, user: str) -> None:
    first, second = await tokens(client, user), await tokens(client, user)
    assert await put_password(client, first, PASSWORD, NEW_PASSWORD) == 204
    assert (await me(client, first)).status_code == 401
    assert (await me(client, second)).status_code == 401
    assert (await refresh(client, second["refresh_token"])).status_code == 401
    assert (await log_in(client, user)).status_code == 401
    assert (await log_in(client, user, NEW_PASSWORD)).status_code == 200
    assert "password.change" in audited(user)


async def test_it_ends_them_even_if_redis_goes_away_in_between(
    client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await tokens(client, user)

    async def away(_: UUID) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(sessions, "end_all", away)
    assert await put_password(client, body, PASSWORD, NEW_PASSWORD) == 204
    assert (await me(client, body)).status_code == 401


async def test_a_password_is_not_changed_without_the_present_one(
    client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, login_attempts_per_account=2)
    body = await tokens(client, user)
    assert await put_password(client, body, PASSWORD, "short") == 422
    assert await put_password(client, body, PASSWORD, "abababababab") == 422
    assert await put_password(client, body, "another password", NEW_PASSWORD) == 403
    assert await put_password(client, body, "another password", NEW_PASSWORD) == 403
    # Whoever has stolen a session must not find the password by trying.
    assert await put_password(client, body, PASSWORD, NEW_PASSWORD) == 429
    assert (await me(client, body)).status_code == 200


async def test_a_login_renews_an_old_hash(client: AsyncClient, user: str) -> None:
    change(user, password_hash=PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD))
    await tokens(client, user)
    with db.session() as session:
        assert "m=19456,t=2,p=1" in str(session.scalar(select(User.password_hash).where(User.username == user)))
    await tokens(client, user)


async def test_an_account_has_so_many_attempts(
    client: AsyncClient, new_client: NewClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, login_attempts_per_account=3, login_window=120)
    for _ in range(3):
        assert (await log_in(client, user, "another password")).status_code == 401
    for asking in (client, new_client("198.51.100.77")):
        response = await log_in(asking, user.upper())
        assert response.status_code == 429
        assert 0 < int(response.headers["Retry-After"]) <= 120
    assert (await log_in(client, "someone-else", "another password")).status_code == 401


async def test_a_login_makes_failures_forgotten(
    client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, login_attempts_per_account=3, login_attempts_per_address=5)
    for _ in range(2):
        for _ in range(2):
            assert (await log_in(client, user, "another password")).status_code == 401
        assert (await log_in(client, user)).status_code == 200
    # The address' failures are not: there were four.
    assert (await log_in(client, user, "another password")).status_code == 401
    assert (await log_in(client, user)).status_code == 429


async def test_an_address_has_so_many_attempts(
    new_client: NewClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, login_attempts_per_address=3)
    client = new_client("2001:db8::1")
    for number in range(3):
        assert (await log_in(client, f"nobody-{number}")).status_code == 401
    assert (await log_in(new_client("2001:db8::2"), user)).status_code == 429
    assert (await log_in(new_client("2001:db8:0:1::1"), user)).status_code == 200


async def test_attempts_at_once_are_counted_too(
    client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, login_attempts_per_account=3)
    answers = await asyncio.gather(*(log_in(client, user, "another password") for _ in range(12)))
    assert sorted(each.status_code for each in answers) == [401] * 3 + [429] * 9


async def test_an_attempt_refused_does_not_prolong_the_wait(
    client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, login_attempts_per_account=1)
    await log_in(client, user, "another password")
    key = f"attempts:account:{user}"
    await cache.client().expire(key, 50)
    assert int((await log_in(client, user)).headers["Retry-After"]) <= 50
    assert await cache.client().get(key) == "1"
    await cache.client().delete(key)
    assert (await log_in(client, user)).status_code == 200


async def test_without_redis_nobody_comes_in(client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = await tokens(client, user)
    nowhere: Any = Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(cache, "client", lambda: nowhere)
    for response in (await me(client, body), await log_in(client, user), await refresh(client, body["refresh_token"])):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
    await nowhere.aclose()
    monkeypatch.undo()
    assert (await me(client, body)).status_code == 200


@pytest.fixture
async def browser(client: AsyncClient, user: str) -> AsyncClient:
    """A browser that has logged in."""
    assert (await client.post("/page/login", params={"username": user})).status_code == 200
    return client


async def test_a_cookie_lets_in(browser: AsyncClient, user: str) -> None:
    assert (await browser.get("/page/who")).json() == user
    assert (await browser.get("/api/v1/auth/me")).json()["username"] == user


async def test_without_a_cookie_a_page_knows_nobody(client: AsyncClient) -> None:
    assert (await client.get("/page/who")).json() is None


@pytest.mark.parametrize("value", ["", ".", "nonsense", "{id}", "{id}.", "{id}.another", "{id}.{secret}x"])
async def test_another_cookie_does_not(browser: AsyncClient, new_client: NewClient, value: str) -> None:
    session_id, _, secret = browser.cookies["fba_session"].partition(".")
    other = new_client()
    other.cookies["fba_session"] = value.format(id=session_id, secret=secret)
    assert (await other.get("/api/v1/auth/me")).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"}],
)
async def test_a_page_of_another_site_changes_nothing(browser: AsyncClient, headers: dict[str, str]) -> None:
    assert (await browser.post("/api/v1/auth/logout", headers=headers)).status_code == 403
    assert (await browser.delete("/api/v1/auth/me/sessions", headers=headers)).status_code == 403
    assert (await browser.get("/api/v1/auth/me", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://testserver"}])
async def test_a_page_of_this_site_may(browser: AsyncClient, headers: dict[str, str]) -> None:
    cookie = browser.cookies["fba_session"]
    assert (await browser.post("/api/v1/auth/logout", headers=headers)).status_code == 204
    assert "fba_session" not in browser.cookies
    browser.cookies["fba_session"] = cookie
    assert (await browser.get("/api/v1/auth/me")).status_code == 401


async def test_a_token_comes_before_the_cookie(browser: AsyncClient, user: str) -> None:
    body = await tokens(browser, user)
    # No page of another site can send it, so its origin does not matter.
    headers = {**bearer(body), "Sec-Fetch-Site": "cross-site"}
    assert (await browser.post("/api/v1/auth/logout", headers=headers)).status_code == 204
    assert (await browser.get("/api/v1/auth/me", headers=bearer(body))).status_code == 401


async def test_a_role_that_changes_counts_at_once(client: AsyncClient, user: str) -> None:
    body = await tokens(client, user)
    with db.session() as session, session.begin():
        role = session.scalars(select(User).where(User.username == user)).one().roles[0]
        role.permissions = [Permission.STACK_READ]
    assert (await me(client, body)).json()["permissions"] == ["stack:read"]
