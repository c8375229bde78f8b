"""`/api/v1/users` and `/api/v1/roles`, and with them all routes of this package."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Path, status
from pydantic import ConfigDict, Field, StringConstraints
from sqlalchemy import exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import errors
from fba_app.audit.record import record
from fba_app.dependencies import Cursor, Limit, Session
from fba_app.files.models import File
from fba_app.paging import page
from fba_app.problems import ConflictError, ForbiddenError, InvalidError, NotFoundError
from fba_app.schedules.models import Schedule
from fba_app.tasks.models import Task
from fba_app.types import Model, Page, Storable
from fba_app.users import login_routes, passwords, sessions
from fba_app.users.access import require
from fba_app.users.login_routes import NewPassword
from fba_app.users.models import ADMIN, Role, User
from fba_app.users.names import RoleName, Username
from fba_app.users.principal import Permission, Principal

users = APIRouter(prefix="/users", tags=["users"])
roles = APIRouter(prefix="/roles", tags=["roles"])
Manager = Annotated[Principal, Depends(require(Permission.USERS_MANAGE))]

RoleNames = Annotated[list[RoleName], Field(max_length=50, description="Of roles that there are.")]
Permissions = Annotated[list[Permission], Field(max_length=50)]
Description = Annotated[str, StringConstraints(max_length=255), Storable]


class UserView(Model):
    """A user."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10",
                "username": "ada",
                "disabled": False,
                "roles": ["user"],
                "created_at": "2026-11-20T12:00:00Z",
                "last_login_at": "2026-11-20T12:30:00Z",
            }
        }
    )

    id: UUID
    username: str
    disabled: bool = Field(description="Whether the user is kept from logging in.")
    roles: list[str]
    created_at: datetime
    last_login_at: datetime | None

    @classmethod
    def of(cls, user: User) -> Self:
        """Build the view of a row."""
        return cls(
            id=user.id,
            username=user.username,
            disabled=user.disabled,
            roles=sorted(role.name for role in user.roles),
            created_at=user.created_at,
            last_login_at=user.last_login_at,
        )


class NewUser(Model):
    """A user to be."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"username": "ada", "password": "correct horse battery", "roles": ["user"], "disabled": False}
        }
    )

    username: Username
    password: NewPassword = Field(description="Not the username, and not a few characters repeated.")
    roles: RoleNames = Field(default_factory=list)
    disabled: bool = False


class UserChange(Model):
    """What to change of a user; what is absent stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"roles": ["operator"]}})

    disabled: bool | None = Field(default=None, description="Disabling ends the user's sessions.")
    roles: RoleNames | None = Field(default=None, description="All that the user shall have, at once.")
    password: NewPassword | None = Field(default=None, description="Ends the user's sessions.")


class RoleView(Model):
    """A role."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "auditor",
                "description": "Reads who did what.",
                "permissions": ["audit:read"],
                "built_in": False,
                "created_at": "2026-11-20T12:00:00Z",
            }
        }
    )

    name: str
    description: str
    permissions: list[Permission]
    built_in: bool = Field(description="Whether it belongs to the application, and cannot be changed.")
    created_at: datetime

    @classmethod
    def of(cls, role: Role) -> Self:
        """Build the view of a row."""
        return cls(
            name=role.name,
            description=role.description,
            permissions=sorted(_known(role.permissions)),
            built_in=role.built_in,
            created_at=role.created_at,
        )


class NewRole(Model):
    """A role to be."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"name": "auditor", "description": "Reads who did what.", "permissions": ["audit:read"]}
        }
    )

    name: RoleName
    description: Description = ""
    permissions: Permissions


class RoleChange(Model):
    """What to change of a role; what is absent stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"permissions": ["audit:read", "stack:read"]}})

    description: Description | None = None
    permissions: Permissions | None = Field(default=None, description="All that the role shall allow, at once.")


def _known(permissions: Iterable[str]) -> set[Permission]:
    """Return the permissions without those of another version of the application."""
    names = set(permissions)
    return {permission for permission in Permission if permission in names}


def _only_own(manager: Principal, permissions: Iterable[str]) -> None:
    """Refuse to touch permissions that the manager lacks: else managing users would be a way to get them."""
    if lacking := sorted(_known(permissions) - manager.permissions):
        raise ForbiddenError(f"This is about permissions that you do not have: {', '.join(lacking)}.")


def _permissions(of: Iterable[Role]) -> set[str]:
    return {permission for role in of for permission in role.permissions}


def _checked(password: str, username: str) -> str:
    if fault := passwords.fault(password, username):
        raise InvalidError(fault, ("body", "password"))
    return password


@asynccontextmanager
async def _or_conflict(detail: str) -> AsyncIterator[None]:
    try:
        yield
    except IntegrityError:
        raise ConflictError(detail) from None


async def _roles(session: AsyncSession, names: list[str]) -> list[Role]:
    # Locked, so that none of them is deleted or extended before they are given.
    query = select(Role).where(Role.name.in_(names)).order_by(Role.id).with_for_update(read=True)
    found = list(await session.scalars(query))
    if missing := sorted(set(names) - {role.name for role in found}):
        raise InvalidError(f"There is no role {', '.join(missing)}.", ("body", "roles"))
    return found


async def _locked_user(session: AsyncSession, user_id: UUID) -> User:
    """Return the user to be changed, while nobody else changes any: two changes at once could leave no admin."""
    await session.execute(select(Role.id).where(Role.name == ADMIN).with_for_update(key_share=True))
    user = await session.get(User, user_id, with_for_update=True)
    if user is None:
        raise NotFoundError(f"There is no user {user_id}.")
    return user


async def _hold_what_is_theirs(session: AsyncSession, user_id: UUID) -> None:
    """Lock what would lose its user, before the user: whoever changes any of it has it first, and then the user.

    The user comes last there, because the audit log names who did it.
    """
    for key, owner in (
        (Schedule.id, Schedule.created_by),
        (Task.id, Task.submitted_by),
        (File.id, File.owner_id),
    ):
        held = select(key).where(owner == user_id).order_by(key).with_for_update().subquery()
        await session.execute(select(func.count()).select_from(held))


async def _require_an_admin(session: AsyncSession) -> None:
    await session.flush()
    if not await session.scalar(select(exists().where(User.roles.any(Role.name == ADMIN), User.disabled.is_(False)))):
        raise ConflictError("This is the last enabled user with the role admin.")


async def _locked_role(session: AsyncSession, manager: Principal, name: str) -> Role:
    role = await session.scalar(select(Role).where(Role.name == name).with_for_update())
    if role is None:
        raise NotFoundError(f"There is no role {name}.")
    if role.built_in:
        raise ConflictError(f"The role {name} is built in.")
    _only_own(manager, role.permissions)
    return role


@users.get("", summary="List users", responses=errors.responses(401, 403, 422, 503))
async def list_users(manager: Manager, session: Session, limit: Limit = 50, cursor: Cursor = None) -> Page[UserView]:
    """List all users, the newest first."""
    rows, following = await page(session, select(User), User, limit, cursor)
    return Page(items=[UserView.of(row) for row in rows], next=following)


@users.post(
    "",
    summary="Create a user",
    status_code=status.HTTP_201_CREATED,
    responses=errors.responses(401, 403, 409, 422, 503),
)
async def create_user(body: NewUser, manager: Manager, session: Session) -> UserView:
    """Create a user, with roles that allow no more than one may oneself."""
    hashed = await passwords.hash_password(_checked(body.password, body.username))
    user = User(username=body.username, password_hash=hashed, disabled=body.disabled)
    user.roles = await _roles(session, body.roles)
    _only_own(manager, _permissions(user.roles))
    session.add(user)
    async with _or_conflict(f"There is a user {body.username} already."):
        await session.flush()
    record(session, manager, "user.create", user.id, username=user.username, roles=body.roles, disabled=user.disabled)
    await session.commit()
    return UserView.of(user)


@users.get("/{user_id}", summary="Show a user", responses=errors.responses(401, 403, 404, 422, 503))
async def get_user(user_id: UUID, manager: Manager, session: Session) -> UserView:
    """Show one user."""
    user = await session.get(User, user_id)
    if user is None:
        raise NotFoundError(f"There is no user {user_id}.")
    return UserView.of(user)


@users.patch("/{user_id}", summary="Change a user", responses=errors.responses(401, 403, 404, 409, 422, 503))
async def change_user(user_id: UUID, body: UserChange, manager: Manager, session: Session) -> UserView:
    """Change a user who may do no more than one may oneself. It takes effect at once. One admin always stays."""
    hashed = await passwords.hash_password(body.password) if body.password is not None else None
    user = await _locked_user(session, user_id)
    _only_own(manager, _permissions(user.roles))
    if body.roles is not None:
        user.roles = await _roles(session, body.roles)
        _only_own(manager, _permissions(user.roles))
    if body.password is not None and hashed is not None:
        if user_id == manager.id:
            raise ForbiddenError("One's own password is changed with the present one, at /api/v1/auth/me/password.")
        _checked(body.password, user.username)
        user.password_hash = hashed
    if body.disabled is not None:
        user.disabled = body.disabled
    ends_sessions = body.disabled or hashed is not None
    if ends_sessions:
        user.epoch += 1
    await _require_an_admin(session)
    changed = body.model_dump(exclude={"password"}, exclude_none=True)
    record(session, manager, "user.change", user.id, username=user.username, password=hashed is not None, **changed)
    await session.commit()
    if ends_sessions:
        await sessions.forget_all(user_id)
    return UserView.of(user)


@users.delete(
    "/{user_id}",
    summary="Delete a user",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors.responses(401, 403, 404, 409, 422, 503),
)
async def delete_user(user_id: UUID, manager: Manager, session: Session) -> None:
    """Delete a user who may do no more than one may oneself. One admin always stays."""
    await _hold_what_is_theirs(session, user_id)
    user = await _locked_user(session, user_id)
    _only_own(manager, _permissions(user.roles))
    record(session, manager, "user.delete", user_id, username=user.username)
    # Who deletes oneself must still be there when the entry is written.
    await session.flush()
    await session.delete(user)
    await _require_an_admin(session)
    await session.commit()
    await sessions.forget_all(user_id)


@roles.get("", summary="List roles", responses=errors.responses(401, 403, 422, 503))
async def list_roles(manager: Manager, session: Session, limit: Limit = 50, cursor: Cursor = None) -> Page[RoleView]:
    """List all roles, the newest first."""
    rows, following = await page(session, select(Role), Role, limit, cursor)
    return Page(items=[RoleView.of(row) for row in rows], next=following)


@roles.post(
    "",
    summary="Create a role",
    status_code=status.HTTP_201_CREATED,
    responses=errors.responses(401, 403, 409, 422, 503),
)
async def create_role(body: NewRole, manager: Manager, session: Session) -> RoleView:
    """Create a role, of permissions that one has oneself."""
    _only_own(manager, body.permissions)
    permissions = sorted(set(body.permissions))
    role = Role(name=body.name, description=body.description, permissions=permissions)
    session.add(role)
    async with _or_conflict(f"There is a role {body.name} already."):
        await session.flush()
    record(session, manager, "role.create", role.name, permissions=permissions)
    await session.commit()
    return RoleView.of(role)


@roles.patch("/{name}", summary="Change a role", responses=errors.responses(401, 403, 404, 409, 422, 503))
async def change_role(
    name: Annotated[RoleName, Path()], body: RoleChange, manager: Manager, session: Session
) -> RoleView:
    """Change a role that is not built in, for all who have it and at once."""
    role = await _locked_role(session, manager, name)
    if body.permissions is not None:
        _only_own(manager, body.permissions)
        role.permissions = sorted(set(body.permissions))
    if body.description is not None:
        role.description = body.description
    record(session, manager, "role.change", name, **body.model_dump(exclude_none=True))
    await session.commit()
    return RoleView.of(role)


@roles.delete(
    "/{name}",
    summary="Delete a role",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors.responses(401, 403, 404, 409, 422, 503),
)
async def delete_role(name: Annotated[RoleName, Path()], manager: Manager, session: Session) -> None:
    """Delete a role that is not built in and that no user has."""
    await session.delete(await _locked_role(session, manager, name))
    async with _or_conflict(f"Some users have the role {name}."):
        await session.flush()
    record(session, manager, "role.delete", name)
    await session.commit()


router = APIRouter(prefix="/api/v1")
for each in (login_routes.router, users, roles):
    router.include_router(each)
