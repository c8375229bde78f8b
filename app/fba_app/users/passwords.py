"""Passwords: which are good enough, and how they are kept."""

import asyncio
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH = 12
MAX_LENGTH = 1024

# OWASP's parameters for Argon2id: with those of RFC 9106, each login would take an eighth of the server's memory.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

# Argon2 lets go of the interpreter's lock. Few threads, so that many logins at once wait rather than fill the memory.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="passwords")


def _encode(octets: int) -> str:
    return b64encode(bytes(octets)).decode().rstrip("=")


_NOBODYS = (
    f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    f"${_encode(_hasher.salt_len)}${_encode(_hasher.hash_len)}"
)
"""A hash that no password has."""


def fault(password: str, username: str) -> str | None:
    """Return what is wrong with a new password, if anything."""
    if len(password) < MIN_LENGTH:
        return f"must have at least {MIN_LENGTH} characters"
    if len(set(password)) < MIN_LENGTH // 3:
        return "must not repeat so few characters"
    if password.lower() == username.lower():
        return "must not be the username"
    return None


def hash_now(password: str) -> str:
    """Hash a password, which takes a while."""
    return _hasher.hash(password)


def _verify(password: str, kept: str | None) -> tuple[bool, str | None]:
    try:
        _hasher.verify(kept or _NOBODYS, password)
    except (VerificationError, InvalidHashError):
        return False, None
    return True, hash_now(password) if kept and _hasher.check_needs_rehash(kept) else None


async def hash_password(password: str) -> str:
    """Hash a password off the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_threads, hash_now, password)


async def verify(password: str, kept: str | None) -> tuple[bool, str | None]:
    """Return whether the password has the hash that is kept, and a new one if that was made with other parameters.

    Takes as long where none is kept, so that nobody learns from the time which users there are.
    """
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, password, kept)
