"""Logging in and out, for the API and the pages alike."""

from dataclasses import dataclass

from fastapi import Request
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.audit.models import AuditEntry
from fba_app.audit.record import record
from fba_app.problems import ForbiddenError, InvalidError, UnauthorizedError
from fba_app.users import access, attempts, passwords, sessions
from fba_app.users.models import User
from fba_app.users.principal import Principal
from fba_app.users.sessions import Rotation, Tokens


@dataclass(frozen=True)
class LoggedIn:
    """A user with a new session: `cookie` is for browsers, `tokens` for everyone else."""

    user: Principal
    cookie: str
    tokens: Tokens


async def log_in(session: AsyncSession, username: str, password: str, request: Request) -> LoggedIn:
    """Begin a session.

    Raises:
        UnauthorizedError: there is no such user, or not with this password, or no longer; which of them is not said.
        TooManyRequestsError: there were too many failed attempts.
    """
    username, address = username.lower(), access.client_address(request)
    await attempts.count(username, address)
    query = select(User.id, User.password_hash, User.disabled, User.epoch).where(User.username == username)
    known = (await session.execute(query)).one_or_none()
    # Hashing may have to wait its turn: not with a connection in hand.
    await session.rollback()
    right, new_hash = await passwords.verify(password, known and known.password_hash)
    user = None
    if known and right and not known.disabled:
        # Also keeps the row as it is until the commit.
        await session.execute(update(User).where(User.id == known.id).values(last_login_at=func.now()))
        begun = await sessions.begin(known.id, known.epoch, address, request.headers.get("User-Agent", ""))
        user = await access.principal(session, sessions.Claim(known.id, begun.session_id, known.epoch), address)
    if not known or not user:
        session.add(AuditEntry(user_id=None, username=username, action="login.failed", address=address, details={}))
        await session.commit()
        raise UnauthorizedError("The username or the password is wrong.")
    if new_hash:
        await session.execute(update(User).where(User.id == user.id).values(password_hash=new_hash))
    record(session, user, "login")
    await attempts.forgive(username, address)
    await session.commit()
    return LoggedIn(user, begun.cookie, begun.tokens)


async def refresh(session: AsyncSession, token: str, request: Request) -> Tokens:
    """Exchange a refresh token for new tokens. One that was used before ends its session: someone has a copy.

    Raises:
        UnauthorizedError: the token is not valid, or its session has ended.
    """
    session_id = sessions.read(token, "refresh")
    claim = await sessions.use(session_id) if session_id else None
    # Before the token is used up: it must still be good if the database is away.
    user = await access.principal(session, claim, access.client_address(request)) if claim else None
    if claim and user:
        rotation, tokens = await sessions.rotate(claim, token)
        if rotation == Rotation.DONE:
            return tokens
        if rotation == Rotation.REUSED:
            record(session, user, "session.reused", claim.session_id)
            await session.commit()
    raise UnauthorizedError("The session has ended.")


async def log_out(session: AsyncSession, user: Principal) -> None:
    """End the session of this request."""
    await sessions.end(user.id, user.session_id)
    record(session, user, "logout")
    await session.commit()


async def change_password(session: AsyncSession, user: Principal, present: str, new: str) -> None:
    """Set a user's own password, and end all of the user's sessions.

    Raises:
        ForbiddenError: the present password is another.
        InvalidError: the new one is too weak.
        TooManyRequestsError: there were too many failed attempts.
    """
    if fault := passwords.fault(new, user.username):
        raise InvalidError(fault, ("body", "new_password"))
    await attempts.count(user.username, user.address)
    kept = await session.scalar(select(User.password_hash).where(User.id == user.id))
    await session.rollback()
    right, _ = await passwords.verify(present, kept)
    if right:
        values = {"password_hash": await passwords.hash_password(new), "epoch": User.epoch + 1}
        # Someone else may have set another one by now.
        query = update(User).where(User.id == user.id, User.password_hash == kept).values(values).returning(User.id)
        right = await session.scalar(query) is not None
    if not right:
        record(session, user, "password.failed")
        await session.commit()
        raise ForbiddenError("The present password is not right.")
    record(session, user, "password.change")
    await attempts.forgive(user.username, user.address)
    await session.commit()
    await sessions.forget_all(user.id)
