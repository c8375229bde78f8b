"""Tokens: only our own, only in time, only for what they are."""

import time
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from fba_app.settings import get_settings
from fba_app.users import attempts, sessions

USER = UUID("3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10")


def token(key: str | None = None, algorithm: str = "HS256", without: str = "", **claims: Any) -> str:
    now = int(time.time())
    payload = {"type": "access", "sub": str(USER), "sid": "s1", "iat": now, "exp": now + 60, **claims}
    payload.pop(without, None)
    key = get_settings().jwt_secret_key.get_secret_value() if key is None else key
    return jwt.encode(payload, key, algorithm)


def test_a_token_names_its_session() -> None:
    access, refresh = sessions._tokens(USER, "s1")
    assert sessions.read(access, "access") == "s1"
    assert sessions.read(refresh, "refresh") == "s1"


def test_a_token_is_good_for_one_thing() -> None:
    access, refresh = sessions._tokens(USER, "s1")
    assert sessions.read(refresh, "access") is None
    assert sessions.read(access, "refresh") is None


def test_tokens_of_one_moment_differ() -> None:
    assert sessions._tokens(USER, "s1").refresh != sessions._tokens(USER, "s1").refresh


def test_a_token_lives_as_long_as_the_settings_say() -> None:
    settings = get_settings()
    for each, lifetime in zip(
        sessions._tokens(USER, "s1"), (settings.access_token_lifetime, settings.session_lifetime), strict=True
    ):
        claims = jwt.decode(each, options={"verify_signature": False})
        assert claims["sub"] == str(USER)
        assert claims["exp"] - claims["iat"] == lifetime


@pytest.mark.parametrize(
    "forged",
    [
        token(key="another key, of thirty-two characters"),
        token(key="", algorithm="none"),
        token(exp=int(time.time()) - 1),
        token(iat=int(time.time()) + 600),
        *(token(without=name) for name in ("type", "sub", "sid", "iat", "exp")),
        token(type="other"),
        token()[:-4],
        "",
        "a.b.c",
        "é",
        # A header that is nothing but opening brackets.
        "W1tb" * 20000 + ".e30.",
    ],
    ids=lambda forged: forged[-12:],
)
def test_other_tokens_name_none(forged: str) -> None:
    assert sessions.read(forged, "access") is None


def test_only_a_hash_of_a_secret_is_kept() -> None:
    secret = str(uuid4())
    assert secret not in sessions._hash(secret)
    assert len(sessions._hash(secret)) == 64


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_a_network_of_ipv6_counts_as_one(address: str, source: str) -> None:
    assert attempts._source(address) == source
