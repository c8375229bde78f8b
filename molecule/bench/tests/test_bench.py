"""How fast the stack is beside what people run today: `make bench` in full; `make bench-quick` fails when a ratio has fallen by half.

On the host of the scenario `default`, which has the bench's tasks in its application afterwards.
"""

import json
import os
import time
from pathlib import Path

import pytest
import testinfra
import variants
import yaml
from traffic import Traffic

from bench import results
from bench.api import run as api
from bench.host import Load
from bench.playbooks.compose import compose_file
from bench.playbooks.run import measure
from bench.worker.run import ASKED, OURS, Bench, compare, median_rate, outcome, steady_rate

from conftest import Stack, playbook_command

PROJECT = Path(__file__).resolve().parents[3]
ROUNDS = int(os.environ.get("FBA_BENCH_ROUNDS", "0"))
"""Of the full bench. Without, the quick one is run."""

SECONDS = 5
"""Of a measurement of workers."""

API_SECONDS = 3
"""Of a measurement of servers."""

RELEASES = 2
"""One takes minutes."""

QUICK = {"noop": ["celery-5.6-gevent", "dramatiq"], "wait": ["dramatiq"]}
"""Whom ours is compared with by the quick version: by workload, the stock configuration and the fastest other one."""

QUICK_ROUNDS, QUICK_SECONDS = 2, 4

quick = pytest.mark.skipif(bool(ROUNDS), reason="part of the full version")
full = pytest.mark.skipif(not ROUNDS, reason="the full version, in make bench")


@pytest.fixture(scope="module")
def source(sources):
    """The options that deploy the application with the bench's tasks."""
    return sources("bench", variants.benched(PROJECT / "bench"))


@pytest.fixture(scope="module")
def stack(source):
    """The stack of the host, with the bench's tasks in its application, and with an image of the contenders."""
    stack = Stack(testinfra.get_host("docker://debian13"))
    for playbook in ("site.yml", "../bench/prepare.yml"):
        run = stack.play(playbook, *source)
        assert run.returncode == 0, run.stdout
    return stack


@pytest.fixture(scope="module")
def workers(stack):
    """The bench of workers."""
    with Load(stack.host), Bench(stack.host) as bench:
        yield bench


def leads(outcomes):
    """Return how many times as fast as each other contender ours is, by workload and contender."""
    return {
        f"{workload}, {other}": median_rate(outcomes[workload][OURS]) / median_rate(outcomes[workload][other])
        for workload, others in QUICK.items()
        for other in others
    }


@quick
def test_no_lead_has_fallen_by_half(workers):
    was = leads(results.load("worker")["workloads"])
    now = leads(compare(workers, {workload: [OURS, *others] for workload, others in QUICK.items()}, QUICK_ROUNDS, QUICK_SECONDS))
    fallen = {name: f"{lead:.2f} times, and {was[name]:.2f} times in the full bench" for name, lead in now.items() if lead < was[name] / 2}
    assert fallen == {}


@full
def test_workers(workers):
    idle = workers.idle_memory()
    outcomes = compare(workers, ASKED, ROUNDS, SECONDS)
    told = with_and_without_events(workers)
    waits = {
        name: workers.queued(name, "noop", steady_rate(rounds), SECONDS)["queued"]["noop"] for name, rounds in outcomes["noop"].items()
    }
    found = {"workloads": outcomes, "events": told, "queued": waits, "idle_mib": idle}
    results.save("worker", {"rounds": ROUNDS, "seconds": SECONDS, **found})


def with_and_without_events(workers):
    """Return the outcomes of tasks that do nothing, by turns: no events, events that nobody takes, events and Flower as it is deployed."""
    found = {"none": [], "events": [], "flower": []}
    enable = ["/opt/venv/bin/celery", "--app", "fba_app.celery", "control", "--timeout", "3", "enable_events"]
    try:
        for _ in range(ROUNDS):
            for state, verb, meanwhile in (("none", "stop", None), ("events", "stop", enable), ("flower", "start", None)):
                workers.host.check_output(f"docker {verb} fba_celery_flower")
                found[state].append(outcome(workers.rate(OURS, ["noop"], SECONDS, meanwhile), "noop"))
    finally:
        workers.host.check_output("docker start fba_celery_flower")
    return found


@full
def test_servers(stack):
    with Load(stack.host):
        found = api.compare(api.Bench(stack.host, workers=1), ROUNDS, API_SECONDS)
    results.save("api", {"rounds": ROUNDS, "seconds": API_SECONDS, "targets": found})


def play(playbook, *arguments):
    """Measure a playbook on the host."""
    run = measure(*playbook_command(playbook, *arguments))
    print(f"{playbook} {' '.join(arguments)}: {run}", flush=True)
    return run


@full
def test_playbooks_on_one_machine(stack, source, sources):
    runs = {"no-op": [play("site.yml", *source) for _ in range(ROUNDS)]}
    assert all(run["changed"] == 0 for run in runs["no-op"])
    runs["variable"] = [play("site.yml", *source, "-e", '{"worker_log_tasks": true}')]
    runs["release"] = []
    with Traffic(stack.url, "admin", stack.secrets["fba_app_admin_password"], scale=0.25) as traffic:
        traffic.wait_for(50)
        for number in range(RELEASES):
            options = sources(f"release{number}", variants.benched(PROJECT / "bench"), variants.mark(number + 1))
            runs["release"].append(play("release.yml", *options))
    report = traffic.report
    composed = compose(stack)
    # The containers alone, as Compose has made them: images and data are there
    stack.host.check_output("docker rm --force $(docker ps --all --quiet --filter label=fba.stack)")
    runs["containers"] = [play("site.yml", *source)]
    asked = {name: report[name] for name in ("requests", "failed", "reopened")}
    results.save("playbooks", {"rounds": ROUNDS, "runs": runs, "compose": composed, "requests": asked})
    assert report["failed"] == 0, traffic.table()


def compose(stack):
    """Return the seconds that `docker compose up -d` takes for the stack's containers: when there are none, and when they run."""
    stack.host.check_output("apt-get update && apt-get install --yes --no-install-recommends docker-compose")
    text = yaml.safe_dump(compose_file(stack.containers(), "fba_network"))
    stack.host.check_output(f"mkdir --parents /root/compose && cat > /root/compose/compose.yml <<'END'\n{text}\nEND")
    seconds = {"first": [], "no-op": []}
    names = " ".join(stack.containers())
    # All at once: a worker whose broker ends before it would wait for that for ten minutes
    stack.host.check_output(f"docker stop --time 20 {names}")
    # A server whose database is gone before it would wait for as long as it may
    up, down = ("docker compose --file /root/compose/compose.yml " + verb for verb in ("up --detach", "down --timeout 20"))
    for _ in range(ROUNDS):
        for what in seconds:
            start = time.monotonic()
            stack.host.check_output(up)
            seconds[what].append(round(time.monotonic() - start, 1))
        running = json.loads(stack.host.check_output("docker compose ls --format json"))
        assert f"running({len(stack.containers())})" in running[0]["Status"]
        stack.host.check_output(down)
    return seconds
