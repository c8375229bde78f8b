"""The session of a request."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db, dependencies


class FakeSession:
    """Stands for a session, which is in a transaction once it has asked something."""

    def __init__(self, *_: object, **__: object) -> None:
        self.asked = False
        self.closed = False

    def in_transaction(self) -> bool:
        """Return whether it holds a connection."""
        return self.asked

    async def close(self) -> None:
        """Give the connection back."""
        self.closed = True


def after_a_request(monkeypatch: pytest.MonkeyPatch, *, asked: bool, failed: bool = False) -> FakeSession:
    """Return the session of a request that has ended."""
    monkeypatch.setattr(dependencies, "AsyncSession", FakeSession)
    monkeypatch.setattr(db, "async_engine", lambda: None)
    sessions: list[FakeSession] = []

    def use(session: AsyncSession) -> None:
        assert isinstance(session, FakeSession)
        sessions.append(session)
        session.asked = asked
        if failed:
            raise RuntimeError("the route fails")

    async def request() -> None:
        async with asynccontextmanager(dependencies._async_session)() as session:
            use(session)

    if failed:
        with pytest.raises(RuntimeError, match="the route fails"):
            asyncio.run(request())
    else:
        asyncio.run(request())
    return sessions[0]


@pytest.mark.parametrize("failed", [False, True])
def test_a_session_that_has_asked_something_gives_its_connection_back(
    monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    assert after_a_request(monkeypatch, asked=True, failed=failed).closed


def test_a_session_that_holds_no_connection_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not after_a_request(monkeypatch, asked=False).closed
