"""What happens to containers, and how those that serve are replaced."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.filter.container import container_plan
from ansible_collections.fba.stack.plugins.filter.roll import container_plans, container_roll, container_verdict, spare_plan

TOOLS = {"probe.sh": "exit 0\n", "launch.py": "", "supervise.py": ""}
SPARE = {"name": "fba_server_spare", "address": "172.30.10.13", "ports": ["10.0.0.2:8003:8001"]}


def spec(name: str = "fba_server_1", image: str = "fba/app:new", **more: Any) -> dict[str, Any]:
    """A server's spec."""
    return {
        "name": name,
        "service": "server",
        "image": image,
        "user": 10001,
        "files": [
            {"path": "/app/.env", "content": "PATH=/etc/fba/fba_server_1/x\n", "secret": True, "mount": "file"},
            {"path": "/etc/app/list.conf", "content": "one\n", "on_change": "reload"},
        ],
        "programs": [{"name": "server", "command": ["granian"], "stop_wait": 130}],
        "health": {"test": ["true"]},
        "reload": ["kill", "-HUP", "1"],
        "address": "172.30.10.11",
        "ports": ["10.0.0.2:8001:8001"],
        "logs": True,
        "tls": "server",
        "memory": "512m",
        "stop_timeout": 140,
        **more,
    }


def plans(*specs: dict[str, Any]) -> list[dict[str, Any]]:
    """Their plans."""
    return container_plans(list(specs), "key", {"timezone": "UTC"}, ["/etc/fba", "/var/log/fba", "/etc/fba/tls"], TOOLS)


def found(name: str, spec_hash: str, state: str = "running") -> dict[str, Any]:
    """A container as docker_host_info lists it."""
    return {"Names": [f"/{name}"], "State": state, "Labels": {"fba.spec": spec_hash}}


def test_the_plans_of_several_are_those_of_each() -> None:
    one = container_plan(spec(), "key", {"timezone": "UTC"}, ("/etc/fba/fba_server_1", "/var/log/fba/fba_server_1", "/etc/fba/tls"), TOOLS)
    assert plans(spec()) == [one]


# What a run does to a container


@pytest.mark.parametrize(
    ("before", "changed", "what", "why"),
    [
        (None, [], "created", "it is not there"),
        ({"image": "fba/app:old", "spec": "other", "state": "running"}, [], "replaced", "fba/app:old is now fba/app:new"),
        ({"image": "fba/app:new", "spec": "other", "state": "running"}, ["/etc/fba/fba_server_1/file-app/.env"], "replaced", ".env"),
        ({"image": "fba/app:new", "spec": "other", "state": "running"}, [], "replaced", "its settings are others"),
        ({"image": "fba/app:new", "spec": "same", "state": "exited"}, [], "started", "it is exited"),
        (
            {"image": "fba/app:new", "spec": "same", "state": "running"},
            ["/etc/fba/fba_server_1/dir-etc-app/list.conf"],
            "reloaded",
            "list.conf",
        ),
        (
            {"image": "fba/app:new", "spec": "same", "state": "running"},
            ["/x/launch.py", "/y/launch.py"],
            "left",
            "for its next start: launch.py",
        ),
        ({"image": "fba/app:new", "spec": "same", "state": "running"}, [], "left", ""),
    ],
)
def test_what_becomes_of_a_container_and_why(before: dict[str, str] | None, changed: list[str], what: str, why: str) -> None:
    plan = plans(spec())[0]
    if before and before["spec"] == "same":
        before["spec"] = plan["hash"]
    verdict = container_verdict(plan, before, changed)
    assert verdict == {
        "container": "fba_server_1",
        "service": "server",
        "what": what,
        "why": why,
        "image": "fba/app:new",
        "spec": plan["hash"],
    }


def test_what_runs_to_its_end_is_run() -> None:
    plan = {**plans(spec())[0], "once": True}
    assert container_verdict(plan, {"image": "fba/app:old", "spec": "other", "state": "exited"})["what"] == "run"


# Replacing what serves


def test_a_spare_differs_in_name_place_and_address_alone() -> None:
    plan = plans(spec())[0]
    spare = spare_plan(plan, **SPARE)
    assert (spare["name"], spare["hash"], spare["image"]) == ("fba_server_spare", plan["hash"], plan["image"])
    assert (spare["root"], spare["log_dir"]) == ("/etc/fba/fba_server_spare", "/var/log/fba/fba_server_spare")
    assert (spare["options"]["address"], spare["options"]["ports"]) == (SPARE["address"], SPARE["ports"])
    assert all(entry["path"].startswith("/etc/fba/fba_server_spare/") for entry in spare["files"])
    assert all(path.startswith("/etc/fba/fba_server_spare/") for path in spare["reload_files"])
    sources = {mount["source"] for mount in spare["options"]["mounts"]}
    assert "/var/log/fba/fba_server_spare" in sources and "/etc/fba/tls/server" in sources
    assert not any("fba_server_1" in source for source in sources)
    # What a file says stays, even where it looks like a path
    assert "PATH=/etc/fba/fba_server_1/x\n" in {entry.get("secret_content") for entry in spare["files"]}
    # And the other is as it was
    assert plan == plans(spec())[0]


def test_where_nothing_runs_yet_nothing_has_to_make_room() -> None:
    roll = container_roll(plans(spec()), [], SPARE)
    assert [plan["name"] for plan in roll["plain"]] == ["fba_server_1"]
    assert (roll["replaced"], roll["spare"], roll["stale"], roll["surplus"]) == ([], None, False, [])


def test_what_is_as_it_should_be_stays() -> None:
    wanted = plans(spec())
    roll = container_roll(wanted, [found("fba_server_1", wanted[0]["hash"])], SPARE)
    assert (roll["plain"], roll["replaced"], roll["spare"]) == (wanted, [], None)


def test_what_serves_is_replaced_behind_a_spare_one_after_the_other() -> None:
    wanted = plans(spec(), spec("fba_server_2"), spec("fba_server_3"))
    there = [
        found("fba_server_1", "old"),
        found("fba_server_2", "old", "exited"),
        found("fba_server_3", "old"),
        found("fba_server_4", "old"),
    ]
    roll = container_roll(wanted, there, SPARE)
    assert [(each["plan"]["name"], each["number"]) for each in roll["replaced"]] == [("fba_server_1", 0), ("fba_server_3", 2)]
    assert [plan["name"] for plan in roll["plain"]] == ["fba_server_2"]
    assert roll["spare"]["name"] == "fba_server_spare"
    assert roll["surplus"] == ["fba_server_4"]
    assert not roll["stale"]


def test_two_that_cannot_serve_together_are_replaced_plainly() -> None:
    wanted = plans(spec())
    roll = container_roll(wanted, [found("fba_server_1", "old")], SPARE, start_first=False)
    assert (roll["plain"], roll["replaced"], roll["spare"]) == (wanted, [], None)


def test_a_spare_that_an_interrupted_run_left_behind() -> None:
    wanted = plans(spec())
    # Of the same release: it goes on where the other stopped
    roll = container_roll(wanted, [found("fba_server_1", "old"), found("fba_server_spare", wanted[0]["hash"])], SPARE)
    assert roll["spare"] is not None and not roll["stale"] and roll["surplus"] == ["fba_server_spare"]
    # Of another one: it is taken out of service before it becomes one of this
    roll = container_roll(wanted, [found("fba_server_1", "old"), found("fba_server_spare", "another")], SPARE)
    assert roll["spare"] is not None and roll["stale"]
    # The replicas are as they should be: it only goes
    roll = container_roll(wanted, [found("fba_server_1", wanted[0]["hash"]), found("fba_server_spare", "another")], SPARE)
    assert roll["spare"] is None and roll["surplus"] == ["fba_server_spare"]


def test_on_the_way_back_the_spare_that_serves_goes_on() -> None:
    before = plans(spec(image="fba/app:old"))
    there = [found("fba_server_1", "new"), found("fba_server_spare", "new")]
    roll = container_roll(before, there, SPARE, spare_stays=True)
    assert (len(roll["replaced"]), roll["spare"], roll["stale"], roll["surplus"]) == (1, None, False, ["fba_server_spare"])
    # Where it is gone already, one like those before comes first
    roll = container_roll(before, there[:1], SPARE, spare_stays=True)
    assert roll["spare"]["image"] == "fba/app:old"
