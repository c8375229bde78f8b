"""Sessions, in Redis: begun by a login, kept alive by use, ended at any time.

A session is carried by a cookie in browsers, by an access token and a refresh token elsewhere. What Redis holds of the
cookie and the refresh token is a hash, so reading it lets nobody in.
"""

import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

import jwt
from redis.exceptions import RedisError

from fba_app import cache
from fba_app.settings import get_settings

MAX_SESSIONS = 50
"""Of one user. A further one ends the one that was used the longest time ago."""

logger = logging.getLogger(__name__)

# KEYS: the session, and the list of its user's, sorted by when they expire.
_BEGIN = """
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2])
while redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) do
    redis.call('DEL', 'session:' .. redis.call('ZPOPMIN', KEYS[2])[1])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2] + ARGV[3], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[3])
"""

# Nothing is written to a session that has ended: that would bring back a part of it.
_USE = """
local kept = redis.call('HMGET', KEYS[1], 'user_id', 'epoch', 'cookie')
if not kept[1] or (ARGV[4] ~= '' and ARGV[4] ~= kept[3]) then
    return false
end
local list = 'sessions:' .. kept[1]
redis.call('HSET', KEYS[1], 'last_used_at', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', list, 'XX', ARGV[2] + ARGV[3], ARGV[1])
redis.call('EXPIRE', list, ARGV[3])
return {kept[1], kept[2]}
"""

_ROTATE = """
local kept = redis.call('HGET', KEYS[1], 'refresh')
if not kept then
    return 0
end
if kept ~= ARGV[2] then
    redis.call('DEL', KEYS[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    return -1
end
redis.call('HSET', KEYS[1], 'refresh', ARGV[3])
return 1
"""

_END = """
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
    return 0
end
return redis.call('DEL', KEYS[1])
"""

_END_ALL = """
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    redis.call('DEL', 'session:' .. id)
end
redis.call('DEL', KEYS[1])
"""


class Claim(NamedTuple):
    """Whose session it is, if that user's epoch is still this one."""

    user_id: UUID
    session_id: str
    epoch: int


class Tokens(NamedTuple):
    """What carries a session outside a browser."""

    access: str
    refresh: str


class Begun(NamedTuple):
    """A new session, and all that can carry it."""

    session_id: str
    cookie: str
    tokens: Tokens


@dataclass(frozen=True)
class SessionInfo:
    """A session, as its user sees it."""

    id: str
    created_at: datetime
    last_used_at: datetime
    address: str
    user_agent: str


class Rotation(IntEnum):
    """What became of a refresh token."""

    DONE = 1
    ENDED = 0  # so had the session
    REUSED = -1  # it had been used before: someone has a copy, so the session has ended


def _session(session_id: str) -> str:
    return f"session:{session_id}"


def _list(user_id: UUID) -> str:
    return f"sessions:{user_id}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> int:
    return int(time.time())


def _token(kind: Literal["access", "refresh"], user_id: UUID, session_id: str, lifetime: int) -> str:
    settings = get_settings()
    now = _now()
    claims = {
        "type": kind,
        "sub": str(user_id),
        "sid": session_id,
        "iat": now,
        "exp": now + lifetime,
        # Two tokens of the same second must differ.
        "jti": secrets.token_urlsafe(16),
    }
    return jwt.encode(claims, settings.jwt_secret_key.get_secret_value(), settings.jwt_algorithm)


def read(token: str, kind: Literal["access", "refresh"]) -> str | None:
    """Return the id of the session that a token of ours is for, unless the token has expired."""
    settings = get_settings()
    try:
        claims = jwt.decode(
            token,
            settings.jwt_secret_key.get_secret_value(),
            algorithms=[settings.jwt_algorithm],
            options={"require": ["type", "sub", "sid", "iat", "exp"]},
        )
    except jwt.InvalidTokenError:
        return None
    return str(claims["sid"]) if claims["type"] == kind else None


def _tokens(user_id: UUID, session_id: str) -> Tokens:
    settings = get_settings()
    return Tokens(
        _token("access", user_id, session_id, settings.access_token_lifetime),
        _token("refresh", user_id, session_id, settings.session_lifetime),
    )


async def begin(user_id: UUID, epoch: int, address: str, user_agent: str) -> Begun:
    """Begin a session."""
    session_id, secret, now = str(uuid4()), secrets.token_urlsafe(32), _now()
    tokens = _tokens(user_id, session_id)
    fields: dict[str, Any] = {
        "user_id": str(user_id),
        "epoch": epoch,
        "cookie": _hash(secret),
        "refresh": _hash(tokens.refresh),
        "created_at": now,
        "last_used_at": now,
        "address": address,
        "user_agent": user_agent[:255],
    }
    await cache.client().eval(
        _BEGIN,
        2,
        _session(session_id),
        _list(user_id),
        session_id,
        now,
        get_settings().session_lifetime,
        MAX_SESSIONS,
        *(part for field in fields.items() for part in field),
    )
    return Begun(session_id, f"{session_id}.{secret}", tokens)


async def use(session_id: str, cookie_secret: str | None = None) -> Claim | None:
    """Return whose session this is and keep it alive; None if it has ended or has another secret."""
    kept = await cache.client().eval(
        _USE,
        1,
        _session(session_id),
        session_id,
        _now(),
        get_settings().session_lifetime,
        "" if cookie_secret is None else _hash(cookie_secret),
    )
    return kept and Claim(UUID(kept[0]), session_id, int(kept[1]))


async def use_cookie(value: str) -> Claim | None:
    """Return whose session a cookie names, as `use` does."""
    session_id, _, secret = value.partition(".")
    return await use(session_id, secret)


async def rotate(claim: Claim, refresh_token: str) -> tuple[Rotation, Tokens]:
    """Exchange a refresh token, once. The new tokens are of no use unless the rotation is done."""
    tokens = _tokens(claim.user_id, claim.session_id)
    done = await cache.client().eval(
        _ROTATE,
        2,
        _session(claim.session_id),
        _list(claim.user_id),
        claim.session_id,
        _hash(refresh_token),
        _hash(tokens.refresh),
    )
    return Rotation(done), tokens


async def end(user_id: UUID, session_id: str) -> bool:
    """End a session of this user; return whether there was one."""
    return bool(await cache.client().eval(_END, 2, _session(session_id), _list(user_id), session_id))


async def end_all(user_id: UUID) -> None:
    """End every session of a user."""
    await cache.client().eval(_END_ALL, 1, _list(user_id))


async def forget_all(user_id: UUID) -> None:
    """Remove what a new epoch has ended already. If Redis is away, it does so itself when their time is up."""
    try:
        await end_all(user_id)
    except RedisError as error:
        logger.warning("the ended sessions of %s are not removed yet: %s", user_id, error)


async def of_user(user_id: UUID) -> list[SessionInfo]:
    """Return a user's sessions, the one used last first."""
    client = cache.client()
    ids = [str(each) for each in await client.zrange(_list(user_id), 0, -1, desc=True)]
    async with client.pipeline(transaction=False) as pipeline:
        for session_id in ids:
            pipeline.hmget(_session(session_id), ["created_at", "last_used_at", "address", "user_agent"])
        found = await pipeline.execute()
    return [
        SessionInfo(
            session_id,
            datetime.fromtimestamp(int(created), UTC),
            datetime.fromtimestamp(int(used), UTC),
            address,
            agent,
        )
        for session_id, (created, used, address, agent) in zip(ids, found, strict=True)
        if created is not None
    ]
