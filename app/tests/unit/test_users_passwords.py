"""Passwords: what is refused, and how the others are kept."""

import asyncio
import threading
import time

import pytest
from argon2 import PasswordHasher

from fba_app.users import passwords

PASSWORD = "correct horse battery"


@pytest.mark.parametrize("password", ["", "short", "elevenchars", "aaaaaaaaaaaa", "abababababab", "Grace.Hopper1"])
def test_a_weak_password_is_refused(password: str) -> None:
    assert passwords.fault(password, "grace.hopper1")


@pytest.mark.parametrize("password", [PASSWORD, "twelve chars", "пароль из слов", "x" * 5 + "yz0123456"])
def test_others_are_not(password: str) -> None:
    assert passwords.fault(password, "grace.hopper1") is None


def test_a_password_is_kept_as_argon2id_and_verified() -> None:
    kept = asyncio.run(passwords.hash_password(PASSWORD))
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept
    assert asyncio.run(passwords.verify(PASSWORD, kept)) == (True, None)
    assert asyncio.run(passwords.verify(PASSWORD + "!", kept)) == (False, None)


def test_the_same_password_has_another_hash_each_time() -> None:
    assert passwords.hash_now(PASSWORD) != passwords.hash_now(PASSWORD)


def test_a_hash_of_other_parameters_is_made_anew() -> None:
    old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    right, new = asyncio.run(passwords.verify(PASSWORD, old))
    assert right
    assert new is not None
    assert asyncio.run(passwords.verify(PASSWORD, new)) == (True, None)
    assert asyncio.run(passwords.verify("another one", old)) == (False, None)


def test_a_broken_hash_lets_nobody_in() -> None:
    assert asyncio.run(passwords.verify(PASSWORD, "not a hash")) == (False, None)


def test_nobodys_password_takes_as_long_as_anyones(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = passwords.hash_now(PASSWORD)

    def fastest(kept: str | None) -> float:
        times = []
        for _ in range(5):
            started = time.thread_time()
            assert passwords._verify("another one", kept) == (False, None)
            times.append(time.thread_time() - started)
        return min(times)

    known, unknown = fastest(kept), fastest(None)
    assert unknown > known / 2
    assert known > unknown / 2


def test_hashing_does_not_hold_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def wait(password: str) -> str:
        assert release.wait(10)
        return password

    monkeypatch.setattr(passwords, "hash_now", wait)

    async def scenario() -> str:
        hashing = asyncio.create_task(passwords.hash_password(PASSWORD))
        # Only a loop that still turns gets here.
        await asyncio.sleep(0)
        assert not hashing.done()
        release.set()
        return await hashing

    assert asyncio.run(scenario()) == PASSWORD
