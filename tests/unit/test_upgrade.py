"""Upgrades of data services: what runs and what is wanted, which jump is allowed, and what the modules do on a host."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ansible_collections.fba.stack.plugins.action import upgrade_plan, upgrade_record
from ansible_collections.fba.stack.plugins.filter.upgrade import (
    conninfo,
    database_dumps,
    kept_containers,
    kept_image,
    queues_kept,
    surplus_backups,
    upgradable,
    upgrade_failures,
    upgrade_notes,
    upgrade_outage,
    upgrade_rows,
)
from ansible_collections.fba.stack.plugins.modules import container_stream, move_folder, volume_usage
from ansible_collections.fba.stack.plugins.plugin_utils.upgrade import (
    is_kept,
    jump_refusal,
    kept_volume,
    rebuilds_data,
    refusals,
    space_refusal,
    version_in,
)

from conftest import ModuleRun

GB = 10**9
Run = Callable[..., ModuleRun]
SERVICES = {
    "postgres": {"container": "fba_postgres", "image": "postgres:17", "command": ["postgres"]},
    "redis": {"container": "fba_redis", "image": "redis:8.0", "command": ["redis-server"]},
    "rabbitmq": {"container": "fba_rabbitmq", "image": "rabbitmq:4.0", "command": ["rabbitmqctl"]},
}
HERE = ["postgres", "redis", "rabbitmq", "server"]


def version(text: str) -> tuple[int, ...]:
    """A version as numbers."""
    return tuple(int(part) for part in text.split("."))


# The image that a service goes on with


@pytest.mark.parametrize("state", ["running", "exited", "created", "restarting"])
def test_a_service_goes_on_with_the_image_of_its_container_whatever_its_state(state: str) -> None:
    assert kept_image({"fba_redis": {"image": "redis:7.0", "state": state}}, "fba_redis", "redis:8.0") == "redis:7.0"


def test_a_service_without_a_container_gets_the_wanted_image() -> None:
    assert kept_image({}, "fba_redis", "redis:8.0") == "redis:8.0"
    assert kept_image({"two_redis": {"image": "redis:7.0"}}, "fba_redis", "redis:8.0") == "redis:8.0"


def test_an_image_that_has_lost_its_name_is_kept_by_its_id() -> None:
    assert kept_image({"fba_redis": {"image": "sha256:0123"}}, "fba_redis", "redis:8.0") == "sha256:0123"


def test_what_runs_another_image_than_the_wanted_one_comes_in_the_order_of_an_upgrade() -> None:
    containers = {f"fba_{service}": {"image": f"{service}:old"} for service in SERVICES}
    found = upgradable(SERVICES, containers, HERE)
    assert [each["service"] for each in found] == ["rabbitmq", "redis", "postgres"]
    assert found[1] == {**SERVICES["redis"], "service": "redis", "runs": "redis:old"}
    assert [each["service"] for each in upgradable(SERVICES, containers, HERE, only="redis")] == ["redis"]


def test_what_is_elsewhere_not_there_or_as_it_is_wanted_is_not_upgraded() -> None:
    containers = {"fba_postgres": {"image": "postgres:17"}, "fba_redis": {"image": "redis:old"}}
    assert upgradable(SERVICES, containers, ["postgres", "rabbitmq"]) == []


def test_the_note_names_both_images_and_the_way() -> None:
    found = upgradable(SERVICES, {"fba_postgres": {"image": "fba/postgres:17-a8"}}, HERE)
    assert upgrade_notes(found, "data1") == (
        "PostgreSQL on data1: fba/postgres:17-a8 runs, postgres:17 is wanted: make upgrade (fba.stack.upgrade -e upgrade_service=postgres)"
    )


# Versions


@pytest.mark.parametrize(
    ("service", "answer", "found"),
    [
        ("postgres", "postgres (PostgreSQL) 17.6 (Debian 17.6-0+deb13u1)\n", (17, 6)),
        ("postgres", "postgres (PostgreSQL) 18beta1\n", (18,)),
        ("postgres", "postgres (PostgreSQL) 9.6.24", (9, 6, 24)),
        ("redis", "Redis server v=8.0.2 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=3951f32b3ed2d0b", (8, 0, 2)),
        ("rabbitmq", "4.0.5\n", (4, 0, 5)),
        ("rabbitmq", "WARNING: something of 1 line\n3.10.8\n", (3, 10, 8)),
        ("rabbitmq", "", None),
        ("postgres", "exec: postgres: not found", None),
    ],
)
def test_the_version_is_read_from_what_the_program_says(service: str, answer: str, found: Any) -> None:
    assert version_in(service, answer) == found


@pytest.mark.parametrize(
    ("service", "start", "end"),
    [
        # The same again, with the day's security updates
        ("postgres", "17.6", "17.6"),
        ("redis", "8.0.2", "8.0.2"),
        ("rabbitmq", "4.0.5", "4.0.5"),
        # Minor versions
        ("postgres", "17.5", "17.6"),
        ("redis", "8.0.2", "8.0.10"),
        ("rabbitmq", "4.0.5", "4.0.9"),
        ("rabbitmq", "3.10.1", "3.10.25"),
        # Any newer major version of these two
        ("postgres", "15.14", "17.6"),
        ("postgres", "9.6.24", "18.0"),
        ("redis", "6.0.16", "8.2.3"),
        # As RabbitMQ's table says
        ("rabbitmq", "3.11.18", "3.12.0"),
        ("rabbitmq", "3.12.14", "3.13.7"),
        ("rabbitmq", "3.13.7", "4.0.5"),
        ("rabbitmq", "3.13.7", "4.2.1"),
        ("rabbitmq", "4.0.5", "4.1.4"),
        ("rabbitmq", "4.0.5", "4.2.1"),
        ("rabbitmq", "4.1.4", "4.2.1"),
        ("rabbitmq", "4.2.5", "4.3.0"),
        # Newer than the table
        ("rabbitmq", "4.3.1", "4.4.0"),
        ("rabbitmq", "4.7.1", "4.8.0"),
    ],
)
def test_jumps_that_are_allowed(service: str, start: str, end: str) -> None:
    assert jump_refusal(service, version(start), version(end)) is None


@pytest.mark.parametrize(
    ("service", "start", "end", "sentence"),
    [
        (
            "postgres",
            "17.6",
            "15.14",
            "PostgreSQL 17.6 runs, and 15.14 is wanted: no older version opens its data; allowed are 17.6 or newer",
        ),
        ("postgres", "17.6", "17.5", "PostgreSQL 17.6 runs, and 17.5 is wanted: no older"),
        ("postgres", "17.10", "17.9", "PostgreSQL 17.10 runs, and 17.9 is wanted: no older"),
        ("redis", "8.0.2", "7.0.15", "Redis 8.0.2 runs, and 7.0.15 is wanted: no older"),
        ("redis", "8.0.2", "8.0.1", "Redis 8.0.2 runs, and 8.0.1 is wanted: no older"),
        ("rabbitmq", "4.0.5", "4.0.4", "RabbitMQ 4.0.5 runs, and 4.0.4 is wanted: no older"),
        ("rabbitmq", "4.0.5", "3.13.7", "RabbitMQ 4.0.5 runs, and 3.13.7 is wanted: no older"),
        ("rabbitmq", "3.10.8", "4.0.5", "RabbitMQ 3.10.8 runs, and 4.0.5 is wanted: allowed from here are 3.10, 3.11; go there first"),
        ("rabbitmq", "3.10.8", "3.12.0", "allowed from here are 3.10, 3.11; go there first"),
        ("rabbitmq", "3.11.17", "3.12.0", "allowed from here are 3.11.18 or a newer 3.11; go there first"),
        ("rabbitmq", "3.12.14", "4.0.5", "allowed from here are 3.12, 3.13; go there first"),
        ("rabbitmq", "3.13.7", "4.3.0", "allowed from here are 3.13, 4.0, 4.1, 4.2; go there first"),
        ("rabbitmq", "4.0.5", "4.3.0", "allowed from here are 4.0, 4.1, 4.2; go there first"),
        ("rabbitmq", "4.1.4", "4.3.0", "allowed from here are 4.1, 4.2; go there first"),
        ("rabbitmq", "4.3.0", "4.5.0", "allowed from here are 4.3, 4.4; go there first"),
        ("rabbitmq", "4.4.0", "5.0.0", "allowed from here are 4.4, 4.5; go there first"),
        # Nothing is known of where one so old may go
        ("rabbitmq", "3.7.18", "3.8.0", "allowed from here are 3.7; go there first"),
    ],
)
def test_jumps_that_are_refused(service: str, start: str, end: str, sentence: str) -> None:
    assert sentence in str(jump_refusal(service, version(start), version(end)))


def test_only_another_major_version_of_postgresql_rebuilds_the_data() -> None:
    assert rebuilds_data("postgres", (15, 14), (17, 6))
    assert rebuilds_data("postgres", (9, 5, 1), (9, 6, 1))
    assert not rebuilds_data("postgres", (17, 5), (17, 6))
    assert not rebuilds_data("redis", (7, 0, 15), (8, 0, 2))
    assert not rebuilds_data("rabbitmq", (3, 13, 7), (4, 0, 5))


def test_what_is_put_aside_is_known_by_its_name() -> None:
    assert kept_volume("fba", (15, 14)) == "fba_postgres_15"
    assert kept_volume("fba", (9, 6, 24)) == "fba_postgres_9_6"
    assert is_kept("fba", "fba_postgres_15")
    assert is_kept("fba", "fba_postgres_9_6")
    for name in ("fba_postgres", "fba_postgres_redis", "fba_postgres_15x", "two_postgres_15", "fba_postgres_version"):
        assert not is_kept("fba", name)
    containers = [{"Names": ["/fba_postgres"]}, {"Names": ["/fba_postgres_15"]}]
    assert kept_containers(containers, "fba") == ["fba_postgres_15"]


def test_twice_the_data_and_a_gigabyte_must_be_free() -> None:
    assert space_refusal("redis", 2 * GB, 5 * GB, "/var/backups/fba") is None
    assert space_refusal("redis", 2 * GB, 5 * GB - 1, "/var/backups/fba") == (
        "Redis has 2.0 GB of data, and /var/backups/fba has 5.0 GB of free space: allowed are 5.0 GB or more, twice the data and 1 GB"
    )


def usage(*volumes: str, free: int = 100 * GB, docker_free: int = 100 * GB) -> dict[str, Any]:
    """What the host has."""
    return {"volumes": {name: {"path": f"/v/{name}", "bytes": GB} for name in volumes}, "free": free, "docker_free": docker_free}


MAJOR = {"postgres": {"start": (15, 14), "end": (17, 6)}}


def test_all_that_is_wrong_comes_at_once() -> None:
    plans = {
        "rabbitmq": {"start": (3, 10, 8), "end": (4, 0, 5)},
        "redis": {"start": None, "end": (8, 0, 2)},
        **MAJOR,
    }
    found = refusals("fba", plans, usage("fba_postgres", "fba_postgres_15", docker_free=2 * GB), "/b")
    assert [sentence.partition(":")[0] for sentence in found] == [
        "RabbitMQ 3.10.8 runs, and 4.0.5 is wanted",
        "the image of Redis that runs does not tell its version",
        "PostgreSQL has 1.0 GB of data, and the folder of Docker's volumes has 2.0 GB of free space",
        "the volume fba_postgres_15 is there already, from an earlier upgrade",
    ]


def test_a_legal_upgrade_with_room_is_not_refused() -> None:
    assert refusals("fba", MAJOR, usage("fba_postgres"), "/b") == []
    # What is kept is in nobody's way where the data stays in its place
    minor = {"postgres": {"start": (17, 5), "end": (17, 6)}}
    assert refusals("fba", minor, usage("fba_postgres", "fba_postgres_15", docker_free=0), "/b") == []


# The plan and its record

FOUND = [{"service": "postgres", "container": "fba_postgres", "image": "postgres:17", "runs": "postgres:15"}]


def plan_args(wanted: str = "postgres (PostgreSQL) 17.6") -> dict[str, Any]:
    """What the role asks for."""
    return {
        "stack": "fba",
        "upgrades": FOUND,
        "running": ["postgres (PostgreSQL) 15.14"],
        "wanted": [wanted],
        "backup_dir": "/var/backups/fba",
    }


def plan_with(run_action: Callable[..., dict[str, Any]], answer: dict[str, Any], **given: Any) -> dict[str, Any]:
    """Run the action; the host answers so."""
    with patch.object(upgrade_plan.ActionModule, "_execute_module", return_value=answer):
        return run_action(upgrade_plan.ActionModule, **{"args": plan_args(), **given})


def test_the_plan_names_versions_backup_and_what_is_kept(run_action: Callable[..., dict[str, Any]]) -> None:
    done = plan_with(run_action, usage("fba_postgres"))
    assert not done.get("failed")
    plan = done["ansible_facts"]["fba_upgrades"]["postgres"]
    assert plan["backup"].startswith("/var/backups/fba/postgres-15.14-20")
    assert surplus_backups([plan["backup"], "/x/postgres-1-30000101T000000Z"], 1) == [plan["backup"]]
    del plan["backup"]
    assert plan == {"from": "15.14", "to": "17.6", "rebuilds": True, "kept": "fba_postgres_15", "path": "/v/fba_postgres"}


def test_a_refused_plan_fails_with_all_reasons(run_action: Callable[..., dict[str, Any]]) -> None:
    done = plan_with(run_action, usage("fba_postgres", free=0, docker_free=0), args=plan_args("postgres (PostgreSQL) 14.2"))
    assert done["failed"]
    assert done["msg"].startswith("Nothing was touched on one, because:\n- PostgreSQL 15.14 runs, and 14.2 is wanted")
    assert len(done["problems"]) == 3


def test_check_mode_does_without_an_image_that_is_not_there_yet(run_action: Callable[..., dict[str, Any]]) -> None:
    done = plan_with(run_action, usage("fba_postgres"), args=plan_args(""), check_mode=True)
    assert not done.get("failed")
    assert plan_with(run_action, usage("fba_postgres"), args=plan_args(""))["failed"]


def test_nothing_to_upgrade_asks_the_host_nothing(run_action: Callable[..., dict[str, Any]]) -> None:
    args = {**plan_args(), "upgrades": [], "running": [], "wanted": []}
    assert plan_with(run_action, {"failed": True}, args=args)["ansible_facts"] == {"fba_upgrades": {}}


def test_the_record_has_the_seconds_or_the_reason(run_action: Callable[..., dict[str, Any]]) -> None:
    plans = {"redis": {"from": "7.0.15", "to": "8.0.2", "backup": "/b/redis", "rebuilds": False}, "postgres": {"rebuilds": True}}

    def record(plans: dict[str, Any], service: str, step: str, **args: str) -> dict[str, Any]:
        done = run_action(
            upgrade_record.ActionModule, {"service": service, "step": step, **args}, {"ansible_facts": {"fba_upgrades": plans}}
        )
        return dict(done["ansible_facts"]["fba_upgrades"])

    begun = record(plans, "redis", "begin")
    ended = record(begun, "redis", "end")
    assert ended["redis"]["seconds"] == 0
    failed = record(ended, "postgres", "fail", reason="It did not restore")
    assert "seconds" not in plans["redis"]
    hostvars = {"data": {"ansible_facts": {"fba_upgrades": failed}}, "app": {"ansible_facts": {}}, "new": {}}
    assert upgrade_rows(["data", "app"], hostvars) == [["redis", "data", "7.0.15", "8.0.2", "/b/redis", "0"]]
    assert upgrade_failures(["data", "app"], hostvars) == ["It did not restore"]
    assert upgrade_outage(["data"], hostvars)
    assert not upgrade_outage(["app", "new", "unknown"], hostvars)


# Backups


def test_the_newest_backups_are_kept_whatever_their_version() -> None:
    paths = [
        "/b/postgres-9.6.24-20260103T000000Z",
        "/b/postgres-17.6-20260101T000000Z",
        "/b/postgres-15.14-20260102T000000Z",
        "/b/postgres-mine",
    ]
    assert surplus_backups(paths, 3) == []
    assert surplus_backups(paths, 1) == ["/b/postgres-17.6-20260101T000000Z", "/b/postgres-15.14-20260102T000000Z"]
    assert surplus_backups(paths, 0) == []


def test_every_database_has_a_file_whatever_its_name() -> None:
    assert database_dumps("fba\n../etc\nä b\n", "/b") == [
        {"name": "fba", "file": "/b/fba.dump"},
        {"name": "../etc", "file": "/b/..%2Fetc.dump"},
        {"name": "ä b", "file": "/b/%C3%A4%20b.dump"},
    ]


def test_a_databases_name_is_no_connection_string() -> None:
    assert conninfo("fba") == "dbname='fba'"
    assert conninfo("it's\\host=x") == "dbname='it\\'s\\\\host=x'"


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ("{31,5,0}", True),
        ("{32,9,2}", True),
        # Delivered since the start, and so no longer ready
        ("{31,0,5}", True),
        ("{31,4,0}", False),
        ("{30,5,0}", False),
    ],
)
def test_what_rabbitmq_had_is_there_or_was_delivered(after: str, kept: bool) -> None:
    assert queues_kept(after, "{31,5,900}") is kept


# The modules


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that puts a program `docker` of these lines of shell in front of all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def put(script: str) -> None:
        (folder / "docker").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / "docker").chmod(0o755)

    return put


def stream(run_module: Run, check_mode: bool = False, **args: Any) -> ModuleRun:
    """Run the module that sends a file through a container."""
    command = {"container": "fba_postgres", "argv": ["pg_dump", "fba"]}
    return run_module(container_stream.main, {**command, **args}, check_mode=check_mode)


def test_a_stream_becomes_a_file_of_its_own(run_module: Run, docker: Callable[[str], None], tmp_path: Path) -> None:
    docker('echo "$@"; echo "progress of hunter2" >&2')
    dest = tmp_path / "fba.dump"
    done = stream(run_module, dest=str(dest))
    assert done.answer["changed"] is True
    assert dest.read_text() == "exec --interactive fba_postgres pg_dump fba\n"
    assert done.answer["size"] == dest.stat().st_size
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600
    assert "hunter2" not in done.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "fba.dump"]


def test_a_stream_that_fails_leaves_no_file_and_says_why(run_module: Run, docker: Callable[[str], None], tmp_path: Path) -> None:
    docker("echo half of it; echo 'server closed the connection' >&2; exit 3")
    dest = tmp_path / "fba.dump"
    dest.write_text("an older one")
    done = stream(run_module, dest=str(dest))
    assert done.answer["failed"] is True
    assert done.answer["msg"] == "pg_dump in fba_postgres failed with 3: server closed the connection"
    assert dest.read_text() == "an older one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "fba.dump"]


def test_a_stream_reads_from_a_file(run_module: Run, docker: Callable[[str], None], tmp_path: Path) -> None:
    docker("[ \"$(cat)\" = 'the dump' ]")
    source = tmp_path / "fba.dump"
    source.write_text("the dump")
    assert stream(run_module, source=str(source)).answer["changed"] is True
    source.write_text("another one")
    assert stream(run_module, source=str(source)).answer["failed"] is True
    assert "No such file" in stream(run_module, source=str(tmp_path / "none")).answer["msg"]


def test_a_stream_in_check_mode_makes_nothing(run_module: Run, docker: Callable[[str], None], tmp_path: Path) -> None:
    docker("exit 1")
    assert stream(run_module, dest=str(tmp_path / "fba.dump"), check_mode=True).answer["changed"] is True
    assert not (tmp_path / "fba.dump").exists()


def move(run_module: Run, source: Path, dest: Path, replace: bool = False, check_mode: bool = False) -> dict[str, Any]:
    """Run the module that moves a folder's content."""
    args = {"source": str(source), "dest": str(dest), "replace": replace}
    return run_module(move_folder.main, args, check_mode=check_mode).answer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with data."""
    folder = tmp_path / "data"
    (folder / "base").mkdir(parents=True)
    (folder / "PG_VERSION").write_text("15\n")
    (folder / ".hidden").touch()
    folder.chmod(0o700)
    if os.getuid() == 0:
        os.chown(folder, 999, 998)
    return folder


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_moves_with_all_it_has_and_leaves_an_empty_one_like_it(run_module: Run, data: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    before = data.stat()
    assert move(run_module, data, aside, check_mode=True)["changed"] is True
    assert names(aside) == []
    assert move(run_module, data, aside)["changed"] is True
    assert names(aside) == [".hidden", "PG_VERSION", "base"]
    assert names(data) == []
    for folder in (data, aside):
        assert (folder.stat().st_mode, folder.stat().st_uid, folder.stat().st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    # There and back, and nothing more to do
    assert move(run_module, data, aside)["changed"] is False
    assert move(run_module, aside, data)["changed"] is True
    assert names(data) == [".hidden", "PG_VERSION", "base"]


def test_what_is_in_the_way_is_removed_only_if_that_is_asked_for(run_module: Run, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "half").touch()
    refused = move(run_module, data, place)
    assert refused["failed"] is True
    assert refused["msg"].startswith(f"{place} is not empty")
    assert names(place) == ["half"]
    assert move(run_module, data, place, replace=True, check_mode=True)["changed"] is True
    assert names(place) == ["half"]
    assert move(run_module, data, place, replace=True)["changed"] is True
    assert names(place) == [".hidden", "PG_VERSION", "base"]


def test_an_empty_source_removes_nothing(run_module: Run, data: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert move(run_module, empty, data, replace=True)["changed"] is False
    assert move(run_module, tmp_path / "none", data, replace=True)["changed"] is False
    assert names(data) == [".hidden", "PG_VERSION", "base"]


def test_a_place_that_was_lost_on_the_way_is_made_again(run_module: Run, data: Path, tmp_path: Path) -> None:
    """What an interruption between the two steps leaves behind."""
    assert move(run_module, data, tmp_path / "missing")["changed"] is True
    assert names(tmp_path / "missing") == [".hidden", "PG_VERSION", "base"]


def test_usage_counts_what_files_take_and_leaves_out_what_is_not_there(run_module: Run, docker: Callable[[str], None], data: Path) -> None:
    (data / "base" / "1").write_bytes(b"x" * 100_000)
    answer = json.dumps([{"Name": "fba_postgres", "Mountpoint": str(data)}])
    docker(
        f"case $2 in ls) echo fba_postgres; echo fba_redis;; inspect) [ \"$*\" = 'volume inspect fba_postgres' ] && echo '{answer}';; esac"
    )
    args = {"names": ["fba_postgres", "fba_postgres_15"], "folder": str(data / "not" / "there")}
    found = run_module(volume_usage.main, args).answer
    assert found["volumes"].keys() == {"fba_postgres"}
    assert found["volumes"]["fba_postgres"]["path"] == str(data)
    assert 100_000 <= found["volumes"]["fba_postgres"]["bytes"] < 200_000
    assert found["free"] > 0
    assert found["docker_free"] > 0


def test_usage_of_nothing_is_nothing(run_module: Run, docker: Callable[[str], None]) -> None:
    docker("[ $2 = ls ]")
    found = run_module(volume_usage.main, {"names": ["fba_postgres"], "folder": "/"}).answer
    assert found["volumes"] == {}
    assert found["docker_free"] == found["free"]
