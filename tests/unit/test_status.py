"""The status table, with the words that Docker uses."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.filter.status import found_containers, status_rows


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
    rows = status_rows({"one": [container(state, status)]}, {"redis": ["one"]}, ["redis"])
    assert rows == [["redis", "one", "fba_redis", health, "fba/redis:8.0", uptime]]


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
    groups = {"redis": ["one"], "server": ["one", "two", "three"], "nginx": []}
    rows = status_rows(found, groups, ["redis", "server", "nginx"])
    assert [row[:4] for row in rows] == [
        ["redis", "one", "-", "missing"],
        ["server", "one", "fba_server_1", "healthy"],
        ["server", "one", "fba_server_2", "healthy"],
        ["server", "two", "-", "missing"],
        ["server", "three", "-", "unreachable"],
    ]


def test_a_host_that_was_not_reached_is_not_one_without_containers() -> None:
    hostvars = {"one": {"__container_found": {"containers": []}}, "gone": {}}
    assert found_containers(["one"], hostvars) == {"one": []}
