# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The application's settings and folders."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from ansible_collections.fba.stack.plugins.plugin_utils.tree import ignore_patterns


def renamed(settings: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return the settings under the application's own names; one that it has no name for (missing or empty) is left out."""
    return {names[key]: value for key, value in settings.items() if names.get(key)}


def directory_volumes(directories: list[str], stack: str) -> dict[str, str]:
    """Return volume name to path for folders of the application that must outlive a container."""
    return {f"{stack}_app{path.rstrip('/').replace('/', '_')}": path for path in directories}


def internal_upload_path(routes: list[dict[str, Any]]) -> str | None:
    """Return the path that nginx sends uploads from when the application says so, or None where no route is for that."""
    return next((route["path"] for route in routes if route["to"] == "upload" and route.get("internal")), None)


def source_binds(source: str, workdir: str, kept: list[str]) -> dict[str, str]:
    """Return host path to container path of what must be mounted to see a source in `workdir` as it is on the host.

    `kept` are the paths of the container that other mounts need. Docker could not make their places in a folder that is mounted read-only,
    so one that holds any of them is mounted entry by entry. What an image is made without (.dockerignore) is left out.
    """
    root = Path(source).expanduser().resolve()
    ignored = ignore_patterns(root)
    binds: dict[str, str] = {}

    def mount(relative: PurePosixPath) -> None:
        target = PurePosixPath(workdir) / relative
        inside = [path for path in map(PurePosixPath, kept) if path.is_relative_to(target)]
        if target in inside or any(pattern.fullmatch(str(relative)) for pattern in ignored):
            return
        if not inside:
            binds[str(root / relative)] = str(target)
        elif (root / relative).is_dir():
            for entry in sorted((root / relative).iterdir()):
                mount(relative / entry.name)

    mount(PurePosixPath())
    return binds


def shell_lines(commands: list[list[str]]) -> str:
    """Return commands, each a list of words, as lines for a shell that stops at the first failure."""
    return "\n".join(shlex.join(str(word) for word in command) for command in commands)


def server_replicas(
    addresses: list[str], stack: str, port: int, publish_port: int, private_address: str = "", peer_port: int = 0
) -> list[dict[str, Any]]:
    """Return what differs between the server's replicas: name, fixed address, and the published ports, counted up from the first.

    `port` is the one inside the network. `publish_port` is on loopback, 0 for none; `peer_port` on the private address, if there is one.
    """
    first = ([("127.0.0.1", publish_port)] if publish_port else []) + ([(private_address, peer_port)] if private_address else [])
    return [
        {
            "name": f"{stack}_server_{number}",
            "address": address,
            "ports": [f"{host}:{start + number - 1}:{port}" for host, start in first],
        }
        for number, address in enumerate(addresses, 1)
    ]


def worker_names(stack: str, count: int) -> list[str]:
    """Return the names of a host's worker containers: the first has no number."""
    return [f"{stack}_celery_worker"] + [f"{stack}_celery_worker_{number}" for number in range(2, int(count) + 1)]


def worker_programs(
    pools: list[dict[str, Any]], app: str, log_level: str, time_limit: int, cores: int, log_tasks: bool = True
) -> list[dict[str, Any]]:
    """Return the supervised programs of the pools: one for each process that runs Celery.

    `app` is Celery's -A, `time_limit` the seconds a task may take, `cores` the number of children of a pool that names none, `log_tasks`
    whether the log tells of every task.
    """
    programs = []
    for pool, name in ((each, name) for each in pools for name in process_names(each)):
        command = ["nice", "-n", str(pool["nice"])] if pool.get("nice") else []
        command += ["python3", "/opt/worker/run.py", name, *([] if log_tasks else ["--quiet-tasks"]), "celery", "-A", app, "worker"]
        command += ["-P", pool["pool"], "-c", str(pool.get("concurrency") or cores), "-Q", ",".join(pool["queues"])]
        command += [f"--loglevel={log_level}", f"--time-limit={time_limit}"]
        if pool.get("max_memory"):
            command.append(f"--max-memory-per-child={pool['max_memory']}")
        # Workers need not know each other: neither does one wait for the others at start
        command += ["--without-gossip", "--without-mingle"]
        programs.append({"name": f"worker-{name}", "command": command})
    return programs


def process_names(pool: dict[str, Any]) -> list[str]:
    """Return a name for each process of a pool; the first has no number."""
    return [pool["name"]] + [f"{pool['name']}-{number}" for number in range(2, int(pool.get("processes") or 1) + 1)]


class FilterModule:
    """Filters on the application contract."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "directory_volumes": directory_volumes,
            "internal_upload_path": internal_upload_path,
            "renamed": renamed,
            "server_replicas": server_replicas,
            "shell_lines": shell_lines,
            "source_binds": source_binds,
            "worker_names": worker_names,
            "worker_programs": worker_programs,
        }
