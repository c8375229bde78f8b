"""Managing users and roles: who may do what to whom, and what must never happen."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import cache, db, errors, openapi
from fba_app.audit import routes as audit
from fba_app.audit.models import AuditEntry
from fba_app.schedules.models import Schedule
from fba_app.users import passwords, routes, sessions, setup
from fba_app.users.models import ADMIN, Role, User
from fba_app.users.principal import Permission

pytestmark = pytest.mark.anyio
PASSWORD = "correct horse battery"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Person:
    """A user with a session, who asks."""

    def __init__(self, client: AsyncClient, user: User) -> None:
        self.client = client
        self.id = user.id
        self.username = user.username
        self.token = ""

    async def log_in(self) -> None:
        begun = await sessions.begin(self.id, 0, "203.0.113.5", "test")
        self.token = begun.tokens.access

    async def ask(self, method: str, path: str, body: Any = None) -> Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return await self.client.request(method, f"/api/v1{path}", json=body, headers=headers)

    async def get(self, path: str) -> Response:
        return await self.ask("GET", path)

    async def change(self, other: "Person", **values: Any) -> Response:
        return await self.ask("PATCH", f"/users/{other.id}", values)


class People:
    """Makes them."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def make(self, *roles: str, **permissions: list[str]) -> Person:
        """Make a user with these roles, and further ones that are made with these permissions."""
        with db.session() as session, session.begin():
            found = [session.scalars(select(Role).where(Role.name == name)).one() for name in roles]
            made = [Role(name=name, permissions=allowed) for name, allowed in permissions.items()]
            user = User(
                username=f"u-{uuid4().hex[:8]}", password_hash=passwords.hash_now(PASSWORD), roles=[*found, *made]
            )
            session.add(user)
        person = Person(self.client, user)
        await person.log_in()
        return person


@pytest.fixture
async def people() -> AsyncIterator[People]:
    """An application with the built-in roles and no user."""
    cache.client.cache_clear()
    db.async_engine.cache_clear()
    with db.session() as session, session.begin():
        for model in (AuditEntry, User, Role):
            session.execute(delete(model))
        setup._roles(session)
    app = FastAPI()
    errors.install(app)
    openapi.install(app)
    app.include_router(routes.router)
    app.include_router(audit.router)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        yield People(client)
    await cache.client().aclose()
    await db.async_engine().dispose()
    cache.client.cache_clear()
    db.async_engine.cache_clear()


@pytest.fixture
async def admin(people: People) -> Person:
    return await people.make(ADMIN)


NEW_USER = {"username": "Grace", "password": PASSWORD, "roles": ["user"]}


async def test_a_user_is_made_shown_and_deleted(admin: Person) -> None:
    created = await admin.ask("POST", "/users", NEW_USER)
    assert created.status_code == 201
    user = created.json()
    assert (user["username"], user["roles"], user["disabled"]) == ("grace", ["user"], False)
    assert "password" not in created.text
    assert (await admin.get(f"/users/{user['id']}")).json() == user
    assert (await admin.ask("DELETE", f"/users/{user['id']}")).status_code == 204
    assert (await admin.get(f"/users/{user['id']}")).status_code == 404
    entries = (await admin.get(f"/audit?username={admin.username}")).json()["items"]
    assert [(each["action"], each["object_id"]) for each in entries] == [
        ("user.delete", user["id"]),
        ("user.create", user["id"]),
    ]
    assert PASSWORD not in str(entries)


async def test_whoever_is_deleted_waits_for_a_change_of_what_is_theirs(admin: Person) -> None:
    """Such a change takes the user last, for the audit log: the other way round, both would wait."""
    user = (await admin.ask("POST", "/users", NEW_USER)).json()
    theirs = uuid4()
    schedule = Schedule(
        id=theirs, name="theirs", kind="sleep", arguments={}, every=60, enabled=False, created_by=UUID(user["id"])
    )
    async with AsyncSession(db.async_engine()) as session:
        session.add(schedule)
        await session.commit()
    async with AsyncSession(db.async_engine()) as change:
        await change.execute(select(Schedule.id).where(Schedule.id == theirs).with_for_update())
        deletion = asyncio.create_task(admin.ask("DELETE", f"/users/{user['id']}"))
        waiting = select(func.count()).select_from(text("pg_stat_activity")).where(text("wait_event_type = 'Lock'"))
        async with AsyncSession(db.async_engine()) as onlooker, asyncio.timeout(10):
            while not await onlooker.scalar(waiting):
                await onlooker.rollback()
                await asyncio.sleep(0.05)
        mine = select(User.id).where(User.id == UUID(user["id"])).with_for_update(read=True, key_share=True)
        assert await change.scalar(mine) is not None
        await change.commit()
    assert (await deletion).status_code == 204
    async with AsyncSession(db.async_engine()) as session:
        assert await session.scalar(select(Schedule.created_by).where(Schedule.id == theirs)) is None


async def test_users_are_listed_in_pages(admin: Person, people: People) -> None:
    made = [admin.username] + [(await people.make()).username for _ in range(4)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await admin.get(f"/users?limit=2{cursor}")).json()
        seen += [each["username"] for each in page["items"]]
        if not page["next"]:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == made[::-1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"username": ""},
        {"username": "with space"},
        {"username": "x" * 65},
        {"username": "grace\n"},
        {"username": "grace\x00"},
        {"password": "short"},
        {"password": "abababababab"},
        {"password": "x" * 1025},
        {"password": "twelve chars\x00"},
        {"username": "grace.hopper", "password": "Grace.Hopper"},
        {"roles": ["no-such-role"]},
        {"roles": ["user"] * 51},
        {"roles": ["\x00"]},
        {"roles": None},
        {"disabled": "perhaps"},
        {"admin": True},
    ],
)
async def test_a_user_that_cannot_be_is_refused(admin: Person, wrong: dict[str, Any]) -> None:
    response = await admin.ask("POST", "/users", NEW_USER | wrong)
    assert response.status_code == 422
    assert response.json()["errors"]
    assert len((await admin.get("/users")).json()["items"]) == 1


async def test_names_are_taken_once_in_any_case(admin: Person) -> None:
    names = ("grace", "Grace", "GRACE")
    answers = await asyncio.gather(*(admin.ask("POST", "/users", NEW_USER | {"username": name}) for name in names))
    assert sorted(each.status_code for each in answers) == [201, 409, 409]


async def test_what_is_not_there_is_404(admin: Person) -> None:
    assert (await admin.get(f"/users/{UNKNOWN}")).status_code == 404
    assert (await admin.ask("PATCH", f"/users/{UNKNOWN}", {"disabled": True})).status_code == 404
    assert (await admin.ask("DELETE", f"/users/{UNKNOWN}")).status_code == 404
    assert (await admin.ask("PATCH", "/roles/nothing", {"description": ""})).status_code == 404
    assert (await admin.ask("DELETE", "/roles/nothing")).status_code == 404


async def test_only_managers_manage(people: People) -> None:
    person = await people.make("operator", "user")
    for method, path, body in (
        ("GET", "/users", None),
        ("POST", "/users", NEW_USER),
        ("GET", f"/users/{person.id}", None),
        ("PATCH", f"/users/{person.id}", {"roles": [ADMIN]}),
        ("DELETE", f"/users/{person.id}", None),
        ("GET", "/roles", None),
        ("POST", "/roles", {"name": "mine", "permissions": []}),
        ("PATCH", "/roles/user", {"description": ""}),
        ("DELETE", "/roles/user", None),
        ("GET", "/audit", None),
    ):
        assert (await person.ask(method, path, body)).status_code == 403, (method, path)
        person.client.cookies.clear()
        assert (await people.client.request(method, f"/api/v1{path}", json=body)).status_code == 401, (method, path)


async def test_disabling_ends_sessions_for_good(admin: Person, people: People) -> None:
    person = await people.make("user")
    assert (await admin.change(person, disabled=True)).json()["disabled"] is True
    assert (await person.get("/auth/me")).status_code == 401
    assert await sessions.of_user(person.id) == []
    assert (await admin.change(person, disabled=False)).status_code == 200
    assert (await person.get("/auth/me")).status_code == 401


async def test_a_password_set_by_a_manager_ends_sessions(admin: Person, people: People) -> None:
    person = await people.make("user")
    assert (await admin.change(person, password=person.username)).status_code == 422
    assert (await person.get("/auth/me")).status_code == 200
    assert (await admin.change(person, password="staple of the twelve moons")).status_code == 200
    assert (await person.get("/auth/me")).status_code == 401
    login = {"username": person.username, "password": "staple of the twelve moons"}
    assert (await people.client.post("/api/v1/auth/login", json=login)).status_code == 200


async def test_ones_own_password_needs_the_present_one(admin: Person) -> None:
    assert (await admin.change(admin, password="staple of the twelve moons")).status_code == 403
    assert (await admin.get("/auth/me")).status_code == 200


async def test_roles_are_given_and_taken_at_once(admin: Person, people: People) -> None:
    person = await people.make()
    assert (await person.get("/users")).status_code == 403
    assert (await admin.change(person, roles=[ADMIN, "user"])).json()["roles"] == [ADMIN, "user"]
    assert (await person.get("/users")).status_code == 200
    assert (await admin.change(person, roles=[])).json()["roles"] == []
    assert (await person.get("/users")).status_code == 403


async def test_a_change_of_nothing_changes_nothing(admin: Person, people: People) -> None:
    person = await people.make("user")
    before = (await admin.get(f"/users/{person.id}")).json()
    assert (await admin.change(person)).json() == before
    assert (await admin.change(person, disabled=None, roles=None, password=None)).json() == before
    assert (await person.get("/auth/me")).status_code == 200


async def test_roles_are_made_changed_and_deleted(admin: Person, people: People) -> None:
    role = {"name": "auditor", "description": "Reads.", "permissions": ["audit:read", "audit:read"]}
    created = await admin.ask("POST", "/roles", role)
    assert created.status_code == 201
    assert created.json()["permissions"] == ["audit:read"]
    assert (await admin.ask("POST", "/roles", role)).status_code == 409
    person = await people.make("auditor")
    assert (await person.get("/audit")).status_code == 200
    changed = await admin.ask("PATCH", "/roles/auditor", {"permissions": ["stack:read"]})
    assert (changed.json()["permissions"], changed.json()["description"]) == (["stack:read"], "Reads.")
    assert (await person.get("/audit")).status_code == 403
    assert (await admin.ask("DELETE", "/roles/auditor")).status_code == 409
    assert (await admin.change(person, roles=[])).status_code == 200
    assert (await admin.ask("DELETE", "/roles/auditor")).status_code == 204
    names = [each["name"] for each in (await admin.get("/roles")).json()["items"]]
    assert sorted(names) == [ADMIN, "operator", "user"]
    actions = [each["action"] for each in (await admin.get("/audit")).json()["items"]]
    assert actions == ["role.delete", "user.change", "role.change", "role.create"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Upper"},
        {"name": ""},
        {"name": "x" * 65},
        {"permissions": ["everything"]},
        {"permissions": None},
        {"description": "x" * 256},
        {"description": "\x00"},
        {"built_in": True},
    ],
)
async def test_a_role_that_cannot_be_is_refused(admin: Person, wrong: dict[str, Any]) -> None:
    response = await admin.ask("POST", "/roles", {"name": "auditor", "permissions": [], **wrong})
    assert response.status_code == 422


@pytest.mark.parametrize("name", [ADMIN, "operator", "user"])
async def test_built_in_roles_stay_as_they_are(admin: Person, name: str) -> None:
    assert (await admin.ask("PATCH", f"/roles/{name}", {"permissions": []})).status_code == 409
    assert (await admin.ask("DELETE", f"/roles/{name}")).status_code == 409
    assert (await admin.ask("POST", "/roles", {"name": name, "permissions": []})).status_code == 409


async def test_nobody_gives_what_they_do_not_have(admin: Person, people: People) -> None:
    manager = await people.make("user", managers=[Permission.USERS_MANAGE])
    other = await people.make(auditors=[Permission.AUDIT_READ])
    plain = await people.make("user")
    for method, path, body in (
        ("POST", "/users", NEW_USER | {"roles": ["operator"]}),
        ("PATCH", f"/users/{manager.id}", {"roles": [ADMIN]}),
        ("PATCH", f"/users/{plain.id}", {"roles": ["user", "auditors"]}),
        ("POST", "/roles", {"name": "mine", "permissions": ["audit:read"]}),
        ("PATCH", "/roles/managers", {"permissions": ["users:manage", "audit:read"]}),
        # Nor becomes someone who may do more, or keeps such a person out.
        ("PATCH", f"/users/{admin.id}", {"password": PASSWORD}),
        ("PATCH", f"/users/{other.id}", {"disabled": True}),
        ("DELETE", f"/users/{other.id}", None),
        ("PATCH", "/roles/auditors", {"permissions": []}),
        ("DELETE", "/roles/auditors", None),
    ):
        assert (await manager.ask(method, path, body)).status_code == 403, (method, path, body)
    assert (await manager.ask("POST", "/users", NEW_USER)).status_code == 201
    assert (await manager.change(plain, roles=["managers"])).status_code == 200
    assert (await manager.ask("POST", "/roles", {"name": "mine", "permissions": ["files:write"]})).status_code == 201


async def test_the_last_admin_stays(admin: Person, people: People) -> None:
    disabled = await people.make(ADMIN)
    assert (await admin.change(disabled, disabled=True)).status_code == 200
    assert (await admin.change(admin, disabled=True)).status_code == 409
    assert (await admin.change(admin, roles=["user"])).status_code == 409
    assert (await admin.ask("DELETE", f"/users/{admin.id}")).status_code == 409
    assert (await admin.get("/auth/me")).json()["roles"] == [ADMIN]


async def test_an_admin_may_go_while_there_is_another(admin: Person, people: People) -> None:
    other = await people.make(ADMIN)
    assert (await admin.ask("DELETE", f"/users/{admin.id}")).status_code == 204
    entry = (await other.get("/audit?action=user.delete")).json()["items"][0]
    assert (entry["username"], entry["user_id"]) == (admin.username, None)


async def two_wait() -> None:
    """Return when two connections wait for a locked role: one is the first in the queue, the other behind it."""
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'tuple' AND relation = 'roles'::regclass")
    async with asyncio.timeout(20), db.async_engine().connect() as connection:
        while await connection.scalar(query) != 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["disable", "take the role", "delete"])
async def test_two_admins_cannot_remove_each_other_at_once(admin: Person, people: People, how: str) -> None:
    other = await people.make(ADMIN)

    async def remove(one: Person, two: Person) -> int:
        if how == "delete":
            return (await one.ask("DELETE", f"/users/{two.id}")).status_code
        body: dict[str, Any] = {"disabled": True} if how == "disable" else {"roles": []}
        return (await one.change(two, **body)).status_code

    # Both are let in, and then both have to wait, so that they really meet.
    async with db.async_engine().begin() as connection:
        await connection.execute(select(Role.id).where(Role.name == ADMIN).with_for_update())
        both = asyncio.gather(remove(admin, other), remove(other, admin))
        await two_wait()
    codes = await both
    assert sorted(codes) in ([200, 409], [204, 409])
    with db.session() as session:
        query = select(func.count()).where(User.roles.any(Role.name == ADMIN), User.disabled.is_(False))
        assert session.scalar(query) == 1


async def test_a_role_is_not_deleted_while_it_is_given(admin: Person, people: People) -> None:
    for number in range(5):
        role = f"role-{number}"
        person = await people.make()
        assert (await admin.ask("POST", "/roles", {"name": role, "permissions": []})).status_code == 201
        given, gone = await asyncio.gather(admin.change(person, roles=[role]), admin.ask("DELETE", f"/roles/{role}"))
        assert (given.status_code, gone.status_code) in ((200, 409), (422, 204))


async def test_the_description_names_the_ways_in(people: People) -> None:
    document = (await people.client.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert (schemes["token"]["scheme"], schemes["token"]["type"]) == ("bearer", "http")
    assert (schemes["cookie"]["in"], schemes["cookie"]["name"]) == ("cookie", "fba_session")
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"]
            assert operation["description"]
            anyone = path in ("/api/v1/auth/login", "/api/v1/auth/refresh")
            assert operation.get("security", []) == ([] if anyone else [{"token": []}, {"cookie": []}])
