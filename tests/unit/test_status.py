"""The status tables, with the words that Docker, RabbitMQ and the election use."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.filter.status import found_containers, leader_lines, maintenance_line, queue_rows, status_rows

from conftest import ROOT


def container(state: str, status: str, name: str = "fba_redis", service: str = "redis") -> dict[str, Any]:
    """A container as docker_host_info lists it."""
    return {"Names": [f"/{name}"], "State": state, "Status": status, "Image": "fba/redis:8.0", "Labels": {"fba.service": service}}


@pytest.mark.parametrize(
    ("state", "status", "health", "uptime"),
    [
        ("running", "Up 5 minutes (healthy)", "healthy", "5 minutes"),
        ("running", "Up 3 seconds (health: starting)", "starting", "3 seconds"),
        ("running", "Up 2 hours (unhealthy)", "unhealthy", "2 hours"),
        ("running", "Up About a minute (healthy)", "healthy", "About a minute"),
        ("running", "Up Less than a second (health: starting)", "starting", "Less than a second"),
        ("running", "Up 5 minutes", "no check", "5 minutes"),
        ("exited", "Exited (137) 4 minutes ago", "exited", "stopped 4 minutes ago"),
        ("exited", "Exited (0) Less than a second ago", "exited", "stopped Less than a second ago"),
        ("restarting", "Restarting (1) 2 seconds ago", "restarting", "stopped 2 seconds ago"),
        ("created", "Created", "created", "-"),
        ("paused", "Up 2 hours (Paused)", "paused", "2 hours"),
        ("dead", "Dead", "dead", "-"),
        ("removing", "Removal In Progress", "removing", "Removal In Progress"),
    ],
)
def test_health_and_uptime(state: str, status: str, health: str, uptime: str) -> None:
    rows = status_rows({"one": [container(state, status)]}, {"redis": ["one"]})
    assert rows == [["redis", "one", "fba_redis", health, "fba/redis:8.0", uptime]]


def test_one_that_finishes_beside_its_successor_is_not_sick() -> None:
    leaves = [
        container("running", "Up 2 hours (unhealthy)", "fba_celery_worker_leaving", "worker"),
        container("running", "Up 9 seconds (healthy)", "fba_celery_worker", "worker"),
    ]
    rows = status_rows({"one": leaves}, {"worker": ["one"]})
    assert [row[2:4] for row in rows] == [["fba_celery_worker", "healthy"], ["fba_celery_worker_leaving", "finishing"]]
    # One that has ended is what it is
    leaves[0] |= {"State": "exited", "Status": "Exited (0) 4 minutes ago"}
    assert status_rows({"one": leaves}, {"worker": ["one"]})[1][3] == "exited"


def test_the_table_is_what_should_run_and_what_does() -> None:
    up = "Up 5 minutes (healthy)"
    found = {
        "one": [
            container("running", up, "fba_server_2", "server"),
            container("running", up, "fba_server_1", "server"),
            container("exited", "Exited (0) 1 hour ago", "fba_migrate", "migrate"),
        ],
        "two": [],
    }
    # In the order in which they start, whatever the inventory's is; what else is in it is not the stack's
    groups = {"server": ["one", "two", "three"], "redis": ["one"], "nginx": [], "all": ["one", "two", "three", "four"]}
    rows = [
        ["redis", "one", "-", "missing"],
        ["server", "one", "fba_server_1", "healthy"],
        ["server", "one", "fba_server_2", "healthy"],
        ["server", "two", "-", "missing"],
        ["server", "three", "-", "unreachable"],
    ]
    assert [row[:4] for row in status_rows(found, groups)] == rows
    # On many hosts there is a registry as well
    with_registry = status_rows(found, {**groups, "registry": ["two"]})
    assert [row[:4] for row in with_registry] == [*rows, ["registry", "two", "-", "missing"]]


def test_a_host_that_was_not_reached_is_not_one_without_containers() -> None:
    hostvars: dict[str, Any] = {"one": {"__container_found": {"containers": []}}, "gone": {}}
    assert found_containers(["one"], hostvars) == {"one": []}


def queue(name: str, ready: int = 0, unacknowledged: int = 0, consumers: int = 1) -> dict[str, Any]:
    """A queue as rabbitmqctl tells of it."""
    return {"name": name, "messages_ready": ready, "messages_unacknowledged": unacknowledged, "consumers": consumers}


def test_queues_are_those_of_tasks() -> None:
    queues = [
        queue("io", 7, 2, 3),
        queue("cpu"),
        # A worker's mailbox, and whoever listens to events, such as Flower
        queue("io-1@fba-work1.celery.pidbox", 1),
        queue("celeryev.0c5d8a8e-3a7b", 5),
        queue("celery_delayed_27", 4, 0, 0),
        queue("celery_delayed_0", 1, 0, 0),
        queue("celery_delayed_1", 0, 0, 0),
    ]
    rows = [["cpu", "0", "0", "1"], ["io", "7", "2", "3"]]
    assert queue_rows(json.dumps(queues)) == [*rows, ["(delayed)", "5", "-", "-"]]
    # Nothing waits: the row would say nothing
    assert queue_rows(json.dumps([each for each in queues if each["messages_ready"] in (0, 7)])) == rows
    # A broker that is not there
    assert queue_rows("\n") == []


def test_a_leader_is_told_by_the_name_of_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The election gives the session its name: by program and by what its container calls the host."""
    spec = importlib.util.spec_from_file_location("singleton", ROOT / "roles/container/files/singleton.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.os, "environ", {})
    sessions = []
    for program, host in (("beat", "fba-app1"), ("other", "elsewhere")):
        monkeypatch.setattr(module.socket, "gethostname", lambda host=host: host)
        sessions.append(module.PostgresLock(program, "/file").application)
    lines = leader_lines("\n".join(sessions) + "\n", "fba").splitlines()
    assert [line.partition(";")[0] for line in lines] == ["beat runs on app1", "other runs on elsewhere"]
    assert leader_lines("", "fba") == ""


def test_maintenance_is_told_where_it_is_on() -> None:
    on, off = (hashlib.sha1(f"default {state};\n".encode(), usedforsecurity=False).hexdigest() for state in ("on", "off"))
    # The last one was never deployed to with a version that knows of it
    stats = {"edge1": {"checksum": on}, "edge2": {"checksum": off}, "edge3": {"exists": False}}
    hostvars = {host: {"__nginx_maintenance_found": {"stat": stat}} for host, stat in stats.items()}

    def line(*hosts: str) -> str:
        return maintenance_line(list(hosts), hostvars, "default on;\n")

    assert line("edge2", "edge3") == ""
    assert line("edge1") == "Maintenance is on at edge1"
    assert line("edge1", "edge2", "edge3") == "Maintenance is on at edge1, and off at edge2, edge3"
