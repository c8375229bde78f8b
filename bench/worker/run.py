"""Measure workers on a deployed stack: the stack's own, and each contender on the stack's RabbitMQ and Redis."""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.host import IMAGE, LOAD, Host, options, run

HERE = Path(__file__).parent
CONTENDER = "fba_bench_worker"
"""The container of the contender that is measured."""

COUNTER = "/run/fba-bench"
OURS = "ours"
WARM_UP = 3.0
"""Seconds from the first task to the begin of a measurement."""

SETTLE = 10.0
"""The same where the time in the queue is measured: what has come while the other processes of a container start has to be done before."""

STEADY = 700.0
"""Tasks a second that come while the time in the queue is measured; half of what a contender has done, where that is less. A message that
comes has to be put into the queue first, and RabbitMQ needs three times the processor for both: with 1,400 a second nothing is left of two
cores, and the time in the queue tells of nothing else."""

LOOKS = 9
"""At the memory of an idle container, some two seconds apart."""

USED = 0.9
"""The share of its tasks with which a measurement ends earlier: then the queue may be empty for some of a contender's processes."""

LEAST = 1.0
"""Seconds that a measurement must take."""


@dataclass(frozen=True)
class Contender:
    """One way to run tasks: a file in `contenders`.

    `environment` is the name of its requirements, `app` the module of `apps` that fills its queue. `container` is that of a worker which is
    deployed already; for the others, `command` is what runs, or for one kind of task that of `commands`. `most` is what it can be expected
    to do at most, in tasks a second: so many are there before it begins. One that is faster is measured for a shorter time.
    """

    name: str
    title: str
    environment: str
    app: str
    most: dict[str, int]
    container: str = CONTENDER
    command: list[str] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def contenders() -> dict[str, Contender]:
    """Return all contenders by name, ours first."""
    files = sorted((HERE / "contenders").glob("*.yml"), key=lambda file: (file.stem != OURS, file.stem))
    return {file.stem: Contender(name=file.stem, **yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files}


OPTIONS = options("worker", "fba_celery_worker")
WORKLOADS = {"noop": ["noop"], "wait": ["wait"], "cpu": ["cpu"], "mix": ["wait", "cpu"]}
"""What is in the queues, by the name of a workload. What is counted of `mix` is what waits."""

ASKED = {
    "noop": [OURS, "celery-gevent", "celery-5.6-gevent", "celery-redis-prefork", "dramatiq", "taskiq"],
    "wait": [OURS, "celery-5.6-gevent", "dramatiq", "taskiq"],
    "cpu": [OURS, "celery-redis-prefork", "dramatiq", "taskiq"],
    "mix": [OURS, "dramatiq"],
}
"""Who is asked for what.

A process for each core waits for two tasks at once, greenlets compute on one core, and ten tasks a second are ten, whatever they do: that
needs no measuring. Tasks that wait beside such as compute are what is peculiar to ours; dramatiq stands for the others.
"""


class Bench:
    """The bench on a host that has the container which makes load. A context manager: it leaves the stack's own worker running."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.contenders = contenders()

    def __enter__(self) -> "Bench":
        self._remove()
        # What counts runs on the host itself, which has nothing to install
        self._run("mkdir", "--parents", COUNTER)
        for script in ("measure.py", "measured.py"):
            self._docker("cp", f"{LOAD}:/bench/worker/{script}", COUNTER)
        for contender in self.contenders.values():
            if contender.name != OURS:
                self._rabbitmqctl("add_vhost", self._vhost(contender))
                self._rabbitmqctl("set_permissions", "--vhost", self._vhost(contender), "fba", ".*", ".*", ".*")
        return self

    def __exit__(self, *_error: object) -> None:
        self._remove()
        for contender in self.contenders.values():
            if contender.name != OURS:
                self._rabbitmqctl("delete_vhost", self._vhost(contender))
        self._docker("start", self.contenders[OURS].container)

    def rate(self, name: str, kinds: list[str], seconds: float, meanwhile: list[str] | None = None) -> dict[str, Any]:
        """Return what a contender does with full queues of these kinds: what `measure.py` prints.

        `meanwhile` is run in the container which makes load, from the first task on.

        Raises:
            RuntimeError: its queue was nearly empty too soon.
        """
        contender = self._ready(name, kinds[0])
        counts = {kind: int(contender.most[kind] * (seconds + WARM_UP)) for kind in kinds}
        for kind, count in counts.items():
            self._submit(contender, kind, count, 0)
        limits = {kind: int(USED * count) for kind, count in counts.items()}
        measured = self._measure(contender, seconds, [*self._in_load(contender), *meanwhile] if meanwhile else [], limits=limits)
        if measured["seconds"] < LEAST:
            raise RuntimeError(f"{name} has done nearly all of {counts} at once: give it more (`most`)")
        return measured

    def queued(self, name: str, kind: str, rate: float, seconds: float) -> dict[str, Any]:
        """Return how long tasks wait in the queue that come at a steady rate, in tasks a second."""
        contender = self._ready(name, kind)
        self._submit(contender, kind, 1, 0)
        load = self._submitting(contender, kind, int(rate * (seconds + SETTLE + 2)), rate)
        return self._measure(contender, seconds, load, limits={}, warm_up=SETTLE)

    def idle_memory(self) -> float:
        """Return the MiB that the stack's own container of workers holds, with all its pools, which have nothing to do at present.

        The median of several looks: some meet a health check, which is a process of its own for a second of eight.
        """
        return statistics.median(self._held(self.contenders[OURS].container) for _ in range(LOOKS))

    def _held(self, container: str) -> float:
        held = self._docker("stats", "--no-stream", "--format", "{{ .MemUsage }}", container).split()[0]
        return float(held[:-3]) * {"KiB": 2**-10, "MiB": 1, "GiB": 2**10}[held[-3:]]

    def _ready(self, name: str, kind: str) -> Contender:
        """Stop all workers, and make the one to be measured ready to start, with empty queues."""
        contender = self.contenders[name]
        self._docker("stop", "--time", "30", self.contenders[OURS].container)
        if contender.name != OURS:
            self._run("docker", "rm", "--force", CONTENDER)
            environment = [word for item in self._variables(contender).items() for word in ("--env", "=".join(item))]
            path = f"PATH=/opt/bench/{contender.environment}/bin:/usr/bin:/bin"
            command = contender.commands.get(kind, contender.command)
            self._docker("create", "--name", CONTENDER, *OPTIONS, *environment, "--env", path, IMAGE, *command)
        self._run(*self._in_load(contender), self._python(contender), "worker/submit.py", contender.app)
        return contender

    def _measure(
        self, contender: Contender, seconds: float, load: list[str], *, limits: dict[str, int], warm_up: float = WARM_UP
    ) -> dict[str, Any]:
        command = ["python3", f"{COUNTER}/measure.py", contender.container, str(seconds), str(warm_up), json.dumps(limits), *load]
        result: dict[str, Any] = json.loads(self._run(*command))
        self._run("docker", "kill", contender.container)
        return result

    def _submit(self, contender: Contender, kind: str, count: int, rate: float) -> None:
        self._run(*self._submitting(contender, kind, count, rate))

    def _submitting(self, contender: Contender, kind: str, count: int, rate: float) -> list[str]:
        return [*self._in_load(contender), self._python(contender), "worker/submit.py", contender.app, kind, str(count), str(rate)]

    def _in_load(self, contender: Contender) -> list[str]:
        environment = [word for item in self._variables(contender).items() for word in ("--env", "=".join(item))]
        return ["docker", "exec", *environment, LOAD]

    def _variables(self, contender: Contender) -> dict[str, str]:
        database = str(1 + list(self.contenders).index(contender.name))
        return {"BENCH_VHOST": self._vhost(contender), "BENCH_REDIS_DATABASE": database, **contender.variables}

    @staticmethod
    def _python(contender: Contender) -> str:
        return "/opt/venv/bin/python" if contender.name == OURS else f"/opt/bench/{contender.environment}/bin/python"

    @staticmethod
    def _vhost(contender: Contender) -> str:
        return f"bench-{contender.name}"

    def _remove(self) -> None:
        self._run("docker", "rm", "--force", CONTENDER)

    def _rabbitmqctl(self, *arguments: str) -> None:
        self._docker("exec", "fba_rabbitmq", "rabbitmqctl", "--quiet", *arguments)

    def _docker(self, *arguments: str) -> str:
        return self._run("docker", *arguments)

    def _run(self, *command: str) -> str:
        return run(self.host, *command)


def steady_rate(rounds: list[dict[str, float]]) -> float:
    """Return the tasks a second with which the time in the queue of a contender is measured."""
    return min(STEADY, median_rate(rounds) / 2)


def outcome(measured: dict[str, Any], kind: str) -> dict[str, float]:
    """Return what a measurement says of one kind of task.

    `rate`: tasks a second. `cpu`: processor seconds of the container for 1000 of them. `memory`: bytes that it held at the end. `busy`: the
    share of the machine's processor time that was used by whatever. `cpu_of_<container>`: processor seconds of another container for 1000
    tasks; `cpu_of_rest`: of what is in none.
    """
    tasks = measured["tasks"][kind]
    others = {name: value for name, value in measured["users"].items() if name not in (CONTENDER, LOAD, "fba_celery_worker")}
    return {
        "rate": round(tasks / measured["seconds"], 1),
        "cpu": round(1000 * measured["cpu_seconds"] / max(tasks, 1), 3),
        "memory": measured["memory"],
        "busy": measured["busy"],
        **{f"cpu_of_{name}": round(1000 * value / max(tasks, 1), 3) for name, value in others.items()},
    }


Outcomes = dict[str, list[dict[str, float]]]
"""By contender, the outcome of each round."""


def compare(bench: Bench, asked: Mapping[str, Iterable[str]], rounds: int, seconds: float) -> dict[str, Outcomes]:
    """Return the outcomes by workload, of those who are asked for it. All take their turn before any has its next one."""
    found: dict[str, Outcomes] = {workload: {name: [] for name in names} for workload, names in asked.items()}
    for number in range(1, rounds + 1):
        for workload, outcomes in found.items():
            kinds = WORKLOADS[workload]
            for name, rounds_of in outcomes.items():
                now = outcome(bench.rate(name, kinds, seconds), kinds[0])
                rounds_of.append(now)
                print(f"round {number} of {rounds}: {workload:4} {name:22} {now['rate']:8.1f} tasks/s", flush=True)
    return found


def median_rate(rounds: list[dict[str, float]]) -> float:
    """Return the median of the rounds' rates, in tasks a second."""
    return statistics.median(each["rate"] for each in rounds)
