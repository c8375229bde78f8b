"""`/api/v1/auth`: logging in and out, and what belongs to oneself."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, status
from pydantic import ConfigDict, Field, StringConstraints

from fba_app import errors
from fba_app.audit.record import record
from fba_app.dependencies import Session
from fba_app.problems import NotFoundError, UnauthorizedError
from fba_app.settings import get_settings
from fba_app.types import Model, Page, ShortText, Storable
from fba_app.users import passwords, service, sessions
from fba_app.users.access import clear_cookie, current_user
from fba_app.users.models import User
from fba_app.users.principal import Permission, Principal
from fba_app.users.sessions import Tokens

router = APIRouter(prefix="/auth", tags=["auth"])
CurrentUser = Annotated[Principal, Depends(current_user)]

Password = Annotated[str, StringConstraints(min_length=1, max_length=passwords.MAX_LENGTH), Storable]
NewPassword = Annotated[
    str, StringConstraints(min_length=passwords.MIN_LENGTH, max_length=passwords.MAX_LENGTH), Storable
]


class LoginRequest(Model):
    """Who logs in."""

    model_config = ConfigDict(json_schema_extra={"example": {"username": "ada", "password": "correct horse battery"}})

    username: ShortText = Field(description="Upper and lower case are the same.")
    password: Password


class RefreshRequest(Model):
    """What to exchange for new tokens."""

    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=2000)] = Field(
        examples=["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"]
    )


class TokensView(Model):
    """What carries a session."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXBlIjoiYWNjZXNzIn0.c2lnbmF0dXJl",
                "token_type": "bearer",
                "expires_in": 900,
                "refresh_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl",
            }
        }
    )

    access_token: str = Field(description="Give it with each request: `Authorization: Bearer …`.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds that the access token is good for.")
    refresh_token: str = Field(description="Good for one exchange. Used again, it ends the session.")

    @classmethod
    def of(cls, tokens: Tokens) -> "TokensView":
        """Build the view of new tokens."""
        lifetime = get_settings().access_token_lifetime
        return cls(access_token=tokens.access, expires_in=lifetime, refresh_token=tokens.refresh)


class Me(Model):
    """Oneself."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10",
                "username": "ada",
                "roles": ["user"],
                "permissions": ["files:write", "tasks:submit"],
                "created_at": "2026-11-20T12:00:00Z",
                "last_login_at": "2026-11-20T12:30:00Z",
            }
        }
    )

    id: UUID
    username: str
    roles: list[str]
    permissions: list[Permission]
    created_at: datetime
    last_login_at: datetime | None


class PasswordChange(Model):
    """A new password, and the one that it replaces."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"present_password": "correct horse battery", "new_password": "staple of the twelve moons"}
        }
    )

    present_password: Password
    new_password: NewPassword = Field(description=f"At least {passwords.MIN_LENGTH} characters, and not the username.")


class SessionView(Model):
    """A session, and where it was begun."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "5b1f7f0e-4c0a-4a43-8d0b-0c1df1a7d8f2",
                "created_at": "2026-11-20T12:00:00Z",
                "last_used_at": "2026-11-20T12:30:00Z",
                "address": "192.0.2.7",
                "user_agent": "curl/8.5.0",
                "current": True,
            }
        }
    )

    id: UUID
    created_at: datetime
    last_used_at: datetime
    address: str
    user_agent: str
    current: bool = Field(description="Whether this very request belongs to it.")


@router.post("/login", summary="Log in", responses=errors.responses(401, 422, 429, 503))
async def login(body: LoginRequest, request: Request, response: Response, session: Session) -> TokensView:
    """Begin a session. Too many failed attempts, for the account or from the address, have to wait."""
    response.headers["Cache-Control"] = "no-store"
    logged_in = await service.log_in(session, body.username, body.password, request)
    return TokensView.of(logged_in.tokens)


@router.post("/refresh", summary="Exchange a refresh token", responses=errors.responses(401, 422, 503))
async def refresh(body: RefreshRequest, request: Request, response: Response, session: Session) -> TokensView:
    """Give new tokens for a refresh token, once. Presented again, it ends the session, as someone has a copy."""
    response.headers["Cache-Control"] = "no-store"
    return TokensView.of(await service.refresh(session, body.refresh_token, request))


@router.post(
    "/logout", summary="Log out", status_code=status.HTTP_204_NO_CONTENT, responses=errors.responses(401, 403, 503)
)
async def logout(user: CurrentUser, session: Session, response: Response) -> None:
    """End this session; its tokens and its cookie are worth nothing from now on."""
    await service.log_out(session, user)
    clear_cookie(response)


@router.get("/me", summary="Who am I", responses=errors.responses(401, 503))
async def me(user: CurrentUser, session: Session) -> Me:
    """Say who asks, and what they may do."""
    row = await session.get(User, user.id)
    if row is None:
        raise UnauthorizedError
    return Me(
        id=row.id,
        username=row.username,
        roles=[role.name for role in row.roles],
        permissions=sorted(user.permissions),
        created_at=row.created_at,
        last_login_at=row.last_login_at,
    )


@router.put(
    "/me/password",
    summary="Change one's password",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors.responses(401, 403, 422, 429, 503),
)
async def change_password(body: PasswordChange, user: CurrentUser, session: Session, response: Response) -> None:
    """Set a new password. Every session ends, this one too: log in with the new password."""
    await service.change_password(session, user, body.present_password, body.new_password)
    clear_cookie(response)


@router.get("/me/sessions", summary="List one's sessions", responses=errors.responses(401, 503))
async def list_sessions(user: CurrentUser) -> Page[SessionView]:
    """List the sessions of the user who asks, the one used last first; there are few, so all on one page."""
    return Page(
        items=[
            SessionView(
                id=UUID(each.id),
                created_at=each.created_at,
                last_used_at=each.last_used_at,
                address=each.address,
                user_agent=each.user_agent,
                current=each.id == user.session_id,
            )
            for each in await sessions.of_user(user.id)
        ],
        next=None,
    )


@router.delete(
    "/me/sessions/{session_id}",
    summary="End one of one's sessions",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors.responses(401, 403, 404, 422, 503),
)
async def end_session(session_id: UUID, user: CurrentUser, session: Session) -> None:
    """Log out elsewhere."""
    if not await sessions.end(user.id, str(session_id)):
        raise NotFoundError(f"There is no session {session_id}.")
    record(session, user, "session.end", session_id)
    await session.commit()


@router.delete(
    "/me/sessions",
    summary="End all of one's sessions",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors.responses(401, 403, 503),
)
async def end_sessions(user: CurrentUser, session: Session, response: Response) -> None:
    """Log out everywhere, here too."""
    await sessions.end_all(user.id)
    record(session, user, "session.end_all")
    await session.commit()
    clear_cookie(response)
