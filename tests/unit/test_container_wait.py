"""Waiting for a container's health."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.modules import container_wait


def about(status: str = "running", health: str | None = "starting", restarts: int = 0) -> dict[str, Any]:
    """What the engine says of a container."""
    state: dict[str, Any] = {"Status": status, "Running": status == "running", "ExitCode": 1}
    return {"RestartCount": restarts, "State": state | ({"Health": {"Status": health}} if health else {})}


@pytest.fixture
def wait(run_module: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """A function that waits for a container of which the engine says one thing after the other, and the last one for ever."""
    monkeypatch.setattr(container_wait, "INTERVAL", 0.001)

    def run(*answers: Any, seconds: int = 60, new: bool = False, version: Any = "any") -> dict[str, Any]:
        def speak() -> Iterator[Any]:
            yield from answers
            while True:
                yield answers[-1]

        following = speak()
        monkeypatch.setattr(container_wait, "ask_engine", lambda path: version if path == "/version" else next(following))
        return dict(run_module(container_wait.main, {"name": "fba_server_1", "seconds": seconds, "new": new}).answer)

    return run


def test_it_ends_when_the_container_is_healthy(wait: Callable[..., dict[str, Any]]) -> None:
    assert "failed" not in wait(about(), about(), about(health="healthy"))
    assert "failed" not in wait(about(health=None))
    # One that was unhealthy may become healthy again, and one that has to be started again too
    assert "failed" not in wait(about(health="unhealthy", restarts=3), about(health="starting", restarts=4), about(health="healthy"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (about("exited"), "has ended with code 1"),
        (None, "is not there any more"),
        (about(restarts=1), "does not stay up"),
        (about("restarting", restarts=1), "does not stay up"),
    ],
)
def test_it_waits_for_nothing_that_cannot_come(wait: Callable[..., dict[str, Any]], answer: Any, message: str) -> None:
    assert wait(about(), answer, new=True)["msg"].startswith(message)


def test_an_engine_that_is_busy_is_asked_again(wait: Callable[..., dict[str, Any]]) -> None:
    assert "failed" not in wait(about(), None, about(health="healthy"), new=True, version=None)


def test_its_patience_has_an_end(wait: Callable[..., dict[str, Any]]) -> None:
    assert wait(about(), seconds=0)["msg"] == "is not healthy after 0 s"
