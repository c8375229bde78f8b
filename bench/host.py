"""What all parts of the bench that run on a deployed stack share: its host, an image with everything, and a container to make load from."""

import shlex
from typing import Protocol

IMAGE = "fba/bench:latest"
LOAD = "fba_bench_load"
"""The container that fills queues and asks servers."""


class Host(Protocol):
    """What testinfra's host does."""

    def check_output(self, command: str, *arguments: str) -> str:
        """Run a command that must succeed, and return what it prints."""
        ...


def run(host: Host, *command: str) -> str:
    """Run a command, given as its words, on the host."""
    return host.check_output(shlex.join(command))


def options(role: str, container: str) -> list[str]:
    """Return docker's options for a container of the bench that is like one of the stack's: network, user, settings, certificate."""
    return [
        "--network=fba_network",
        "--user=10001:10001",
        "--env=FBA_ENV_FILE=/app/.env",
        f"--mount=type=bind,source=/etc/fba/{container}/file-app/.env,target=/app/.env,readonly",
        f"--mount=type=bind,source=/etc/fba/tls/{role},target=/run/fba/tls,readonly",
    ]


class Load:
    """The container that makes load. A context manager."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def __enter__(self) -> "Load":
        self._remove()
        run(self.host, "docker", "run", "--detach", "--name", LOAD, *options("worker", "fba_celery_worker"), IMAGE, "sleep", "infinity")
        return self

    def __exit__(self, *_error: object) -> None:
        self._remove()

    def _remove(self) -> None:
        run(self.host, "docker", "rm", "--force", LOAD)
