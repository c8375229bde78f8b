"""A container that finishes what it does beside its successor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.module_utils.engine import EngineAway
from ansible_collections.fba.stack.plugins.modules import container_leave

NAME, LEAVES_AS = "fba_celery_worker", "fba_celery_worker_leaving"
GIVEN = {"name": NAME, "leaves_as": LEAVES_AS, "memory": "1152m"}


def about(identifier: str = "one", status: str = "running", health: str | None = "healthy", signal: str | None = None) -> dict[str, Any]:
    """What the engine says of a container."""
    return {
        "Id": identifier,
        "State": {"Status": status, **({"Health": {"Status": health}} if health else {})},
        "Config": {"StopSignal": signal} if signal else {},
    }


class Engine:
    """What the engine has, and what it was told."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.told: list[tuple[Any, ...]] = []
        self.refuses = ""

    def look_up(self, path: str) -> Any:
        assert path.startswith("/containers/")
        return self.containers.get(path.split("/")[2])

    def tell(self, *told: Any) -> None:
        if self.refuses and self.refuses in told[1]:
            raise EngineAway("it answers 500: no")
        self.told.append(told)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """An engine with a worker that is well, on a host with memory."""
    made = Engine()
    made.containers[NAME] = about()
    monkeypatch.setattr(container_leave, "look_up", made.look_up)
    monkeypatch.setattr(container_leave, "tell", made.tell)
    monkeypatch.setattr(container_leave, "MEMORY", str(tmp_path / "meminfo"))
    available(tmp_path, 1152)
    return made


def available(folder: Path, megabytes: int) -> None:
    """Let so much memory be available, whatever is free."""
    (folder / "meminfo").write_text(f"MemTotal: 8000000 kB\nMemFree: 100 kB\nMemAvailable:  {megabytes * 1024} kB\n")


@pytest.fixture
def leave(engine: Engine, run_module: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Run the module."""
    return lambda **options: dict(run_module(container_leave.main, GIVEN, **options).answer)


def test_it_gives_its_name_away_and_is_asked_to_end_last(leave: Callable[..., dict[str, Any]], engine: Engine) -> None:
    answer = leave()
    assert (answer["changed"], answer["leaves_as"]) == (True, LEAVES_AS)
    assert engine.told == [
        ("POST", "/containers/one/update", {"RestartPolicy": {"Name": "no"}}),
        ("POST", f"/containers/one/rename?name={LEAVES_AS}"),
        ("POST", "/containers/one/kill?signal=SIGTERM"),
    ]


def test_its_own_signal_and_none_without_a_check(leave: Callable[..., dict[str, Any]], engine: Engine) -> None:
    engine.containers[NAME] = about(health=None, signal="SIGQUIT")
    assert leave()["changed"]
    assert engine.told[-1] == ("POST", "/containers/one/kill?signal=SIGQUIT")


@pytest.mark.parametrize("status", ["exited", "created", "dead"])
def test_an_earlier_one_that_has_ended_is_removed(leave: Callable[..., dict[str, Any]], engine: Engine, status: str) -> None:
    engine.containers[LEAVES_AS] = about("earlier", status)
    assert leave()["changed"]
    assert engine.told[0] == ("DELETE", "/containers/earlier")
    assert len(engine.told) == 4


@pytest.mark.parametrize(
    ("found", "earlier", "why"),
    [
        (None, None, "it is not there"),
        (about(status="exited"), None, "it is exited"),
        (about(status="restarting"), None, "it is restarting"),
        (about(health="starting"), None, "it is starting"),
        (about(health="unhealthy"), None, "it is unhealthy"),
        (about(), about("earlier"), "an earlier one has not finished yet"),
        (about(), about("earlier", health="unhealthy"), "an earlier one has not finished yet"),
    ],
)
def test_nothing_is_done_where_it_cannot(leave: Callable[..., dict[str, Any]], engine: Engine, found: Any, earlier: Any, why: str) -> None:
    engine.containers = {name: each for name, each in ((NAME, found), (LEAVES_AS, earlier)) if each}
    answer = leave()
    assert (answer["changed"], answer["leaves_as"], answer["why"], engine.told) == (False, "", why, [])


def test_nothing_is_done_where_memory_is_short(leave: Callable[..., dict[str, Any]], engine: Engine, tmp_path: Path) -> None:
    available(tmp_path, 1151)
    assert leave()["why"] == "1151 MiB of memory are available, and its successor may need 1152"
    assert engine.told == []


def test_check_mode_tells_it_only(leave: Callable[..., dict[str, Any]], engine: Engine) -> None:
    answer = leave(check_mode=True)
    assert (answer["changed"], answer["leaves_as"], engine.told) == (True, LEAVES_AS, [])


def test_an_engine_that_refuses_is_told_of(leave: Callable[..., dict[str, Any]], engine: Engine) -> None:
    engine.refuses = "rename"
    answer = leave()
    assert answer["failed"]
    assert "it answers 500: no" in answer["msg"]
    # It goes on under its name
    assert [told[1] for told in engine.told] == ["/containers/one/update"]


def test_a_size_that_is_none(run_module: Callable[..., Any], engine: Engine) -> None:
    answer = run_module(container_leave.main, {**GIVEN, "memory": "much"}).answer
    assert answer["failed"]
    assert "memory is 'much'" in answer["msg"]
