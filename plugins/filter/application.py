# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The application's settings and folders."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any


def renamed(settings: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return the settings under the application's own names; one that it has no name for (missing or empty) is left out."""
    return {names[key]: value for key, value in settings.items() if names.get(key)}


def directory_volumes(directories: list[str], stack: str) -> dict[str, str]:
    """Return volume name to path for folders of the application that must outlive a container."""
    return {f"{stack}_app{path.rstrip('/').replace('/', '_')}": path for path in directories}


def shell_lines(commands: list[list[str]]) -> str:
    """Return commands, each a list of words, as lines for a shell that stops at the first failure."""
    return "\n".join(shlex.join(str(word) for word in command) for command in commands)


def server_replicas(addresses: list[str], stack: str, port: int, publish_port: int) -> list[dict[str, Any]]:
    """Return what differs between the server's replicas: name, fixed address, and the published port, counted up from the first.

    `port` is the one inside the network; a `publish_port` of 0 publishes none.
    """
    return [
        {
            "name": f"{stack}_server_{number}",
            "address": address,
            "ports": [f"127.0.0.1:{publish_port + number - 1}:{port}"] if publish_port else [],
        }
        for number, address in enumerate(addresses, 1)
    ]


def worker_names(stack: str, count: int) -> list[str]:
    """Return the names of a host's worker containers: the first has no number."""
    return [f"{stack}_celery_worker"] + [f"{stack}_celery_worker_{number}" for number in range(2, int(count) + 1)]


def worker_programs(pools: list[dict[str, Any]], app: str, log_level: str, time_limit: int, cores: int) -> list[dict[str, Any]]:
    """Return one supervised program per pool.

    `app` is Celery's -A, `time_limit` the seconds a task may take, `cores` the number of children of a pool that names none.
    """
    programs = []
    for pool in pools:
        command = ["python3", "/opt/worker/run.py", pool["name"], "celery", "-A", app, "worker"]
        command += ["-P", pool["pool"], "-c", str(pool.get("concurrency") or cores), "-Q", ",".join(pool["queues"])]
        command += [f"--loglevel={log_level}", f"--time-limit={time_limit}"]
        if pool.get("max_memory"):
            command.append(f"--max-memory-per-child={pool['max_memory']}")
        # Workers need not know each other: neither does one wait for the others at start
        command += ["--without-gossip", "--without-mingle"]
        programs.append({"name": f"worker-{pool['name']}", "command": command})
    return programs


class FilterModule:
    """Filters on the application contract."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "directory_volumes": directory_volumes,
            "renamed": renamed,
            "server_replicas": server_replicas,
            "shell_lines": shell_lines,
            "worker_names": worker_names,
            "worker_programs": worker_programs,
        }
