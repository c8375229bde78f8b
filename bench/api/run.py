"""Measure servers with wrk, from a container in the stack's network: the deployed one, and each contender in a container of its own."""

import json
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.host import IMAGE, LOAD, Host, options, run

HERE = Path(__file__).parent
CONTENDER = "fba_bench_server"
WORKER = "fba_celery_worker"
CALM = 3
"""How many times as long it is measured at half the rate, where a single pause of a few milliseconds can be the slowest of a hundred."""

PATIENCE = 60.0
"""Seconds that the server has to publish what it has accepted."""

TARGETS = {
    "live": "/health/live",
    "read": "/task-status/00000000-0000-0000-0000-000000000000",
    "submit": "/bench/submit",
    "apply-async": "/bench/apply-async",
}
"""What is asked for: an answer that needs nothing else, one that looks for a row in PostgreSQL, a task that is accepted for good, and a
task that is sent as it is mostly done."""

ASKED = {
    "live": ["ours", "nginx", "granian-stock", "uvicorn", "empty"],
    "read": ["ours", "nginx", "granian-stock", "uvicorn"],
    "submit": ["ours", "nginx"],
    "apply-async": ["ours", "nginx"],
}
"""Who is asked for what."""

CONNECTIONS = {"live": (16, 64, 256), "read": (64,), "submit": (16, 64, 256), "apply-async": (64,)}
"""How many ask at the same time, for the targets."""


@dataclass(frozen=True)
class Contender:
    """One way to serve: a file in `contenders`. Either the `address` of what is deployed, or the `command` of a container of its own."""

    name: str
    title: str
    address: str = f"{CONTENDER}:8001"
    command: str = ""


def contenders() -> dict[str, Contender]:
    """Return all contenders by name."""
    files = sorted((HERE / "contenders").glob("*.yml"))
    return {file.stem: Contender(name=file.stem, **yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files}


class Bench:
    """The bench on a host that has the container which makes load."""

    def __init__(self, host: Host, workers: int) -> None:
        """`workers`: processes of the deployed server, for the contenders that shall have as many."""
        self.host = host
        self.workers = workers
        self.contenders = contenders()

    @contextmanager
    def running(self, name: str) -> Iterator[Contender]:
        """Have a contender answer."""
        contender = self.contenders[name]
        if not contender.command:
            yield contender
            return
        command = contender.command.format(workers=self.workers).split()
        folders = ["--tmpfs=/app/upload:uid=10001", "--tmpfs=/tmp"]
        run(self.host, "docker", "rm", "--force", CONTENDER)
        run(self.host, "docker", "run", "--detach", "--name", CONTENDER, *options("server", "fba_server_1"), *folders, IMAGE, *command)
        try:
            check = ["python3", "/bench/api/answers.py", f"http://{contender.address}/health/live"]
            run(self.host, "docker", "exec", LOAD, *check)
            yield contender
        finally:
            run(self.host, "docker", "rm", "--force", CONTENDER)

    def settle(self) -> None:
        """Wait until what was accepted is published, which is work of the server: that of the next measurement shall be its own.

        Raises:
            RuntimeError: it is not within `PATIENCE`.
        """
        deadline = time.monotonic() + PATIENCE
        while (left := int(self._sql("SELECT count(*) FROM tasks WHERE published_at IS NULL"))) > 0:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{left} tasks were accepted and not published within {PATIENCE} s")
            time.sleep(0.2)

    def forget(self) -> None:
        """Forget all tasks, which nobody wants to be done."""
        self._sql("TRUNCATE tasks CASCADE")
        for line in self._rabbitmqctl("list_queues", "--no-table-headers", "name", "messages").splitlines():
            queue, messages = line.split()
            # Celery has some thirty for what is delayed, and each call takes a second
            if int(messages):
                self._rabbitmqctl("purge_queue", queue)

    def _rabbitmqctl(self, *arguments: str) -> str:
        return run(self.host, "docker", "exec", "fba_rabbitmq", "rabbitmqctl", "--quiet", "--vhost", "fba", *arguments)

    def _sql(self, statement: str) -> str:
        psql = ["psql", "--username=postgres", "--dbname=fba", "--tuples-only", "--no-align", f"--command={statement}"]
        return run(self.host, "docker", "exec", "fba_postgres", *psql)

    def ask(self, contender: Contender, target: str, connections: int, seconds: float, rate: float = 0) -> dict[str, float]:
        """Return what wrk says: `rate` in requests a second, `failed` requests, `p50`, `p99` and `p999` in milliseconds.

        `connections` ask one after the other, as fast as they are answered, or all together about `rate` times a second.
        """
        environment = ["--env", f"WRK_DELAY={1000 * connections / rate:.1f}"] if rate else []
        wrk = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s", "--timeout", "10s"]
        # wrk takes no name with an underscore
        name, port = contender.address.split(":")
        address = run(self.host, "docker", "exec", LOAD, "getent", "hosts", name).split()[0]
        url = f"http://{address}:{port}{TARGETS[target]}"
        answer = run(self.host, "docker", "exec", *environment, LOAD, *wrk, "--script", "/bench/api/report.lua", url)
        found = re.search(r"^REPORT (.*)$", answer, re.MULTILINE)
        if not found:
            raise RuntimeError(f"wrk has not said how it went: {answer}")
        report: dict[str, Any] = json.loads(found[1])
        return report


Reports = dict[str, list[dict[str, float]]]
"""What wrk says in each round, by number of connections as text. `half`: 64 connections at about half of the most that they reached."""


def compare(bench: Bench, rounds: int, seconds: float) -> dict[str, dict[str, Reports]]:
    """Return what wrk says, by target and contender. All contenders take their turn before any has its next one.

    The stack's workers stand still meanwhile: what they would do with the tasks that are submitted is another part of the bench.
    """
    found: dict[str, dict[str, Reports]] = {
        target: {name: {step: [] for step in (*map(str, CONNECTIONS[target]), "half")} for name in names} for target, names in ASKED.items()
    }
    run(bench.host, "docker", "stop", WORKER)
    try:
        for number in range(1, rounds + 1):
            for target, contenders_of in found.items():
                for name, reports in contenders_of.items():
                    with bench.running(name) as contender:
                        for connections in CONNECTIONS[target]:
                            reports[str(connections)].append(bench.ask(contender, target, connections, seconds))
                        bench.settle()
                        most = statistics.median(each["rate"] for each in reports["64"])
                        reports["half"].append(bench.ask(contender, target, 64, CALM * seconds, rate=most / 2))
                    now, calm = reports["64"][-1], reports["half"][-1]
                    told = f"{now['rate']:8.0f} requests/s; at half of it p99 {calm['p99']:.1f} ms"
                    print(f"round {number} of {rounds}: {target:12} {name:14} {told}", flush=True)
    finally:
        # What was submitted would keep the machine busy for minutes, which is no part of what is measured next
        bench.forget()
        run(bench.host, "docker", "start", WORKER)
    return found
