"""How fast the stack is beside what people run today: `make bench` in full; `make bench-quick` fails when a ratio has fallen by half.

On the host of the scenario `default`, which has the bench's tasks in its application afterwards.
"""

import os
from pathlib import Path

import pytest
import testinfra
import variants

from bench import results
from bench.api import run as api
from bench.host import Load
from bench.worker.run import OURS, Bench, compare, median_rate, outcome

from conftest import Stack

PROJECT = Path(__file__).resolve().parents[3]
ROUNDS = int(os.environ.get("FBA_BENCH_ROUNDS", "0"))
"""Of the full bench. Without, the quick one is run."""

SECONDS = 10
quick = pytest.mark.skipif(bool(ROUNDS), reason="part of the full version")
full = pytest.mark.skipif(not ROUNDS, reason="the full version, in make bench")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The stack of the host, with the bench's tasks in its application, and with an image of the contenders."""
    stack = Stack(testinfra.get_host("docker://debian13"))
    source = tmp_path_factory.mktemp("bench") / "app"
    variants.make_variant(PROJECT / "app", source, variants.benched(PROJECT / "bench"))
    for playbook in ("site.yml", "../bench/prepare.yml"):
        run = stack.play(playbook, "-e", f"fba_app_source={source}")
        assert run.returncode == 0, run.stdout
    return stack


@pytest.fixture(scope="module")
def workers(stack):
    """The bench of workers."""
    with Load(stack.host), Bench(stack.host) as bench:
        yield bench


@quick
@pytest.mark.parametrize(("workload", "other"), [("noop", "celery-5.6-gevent"), ("noop", "dramatiq"), ("wait", "dramatiq")])
def test_no_lead_has_fallen_by_half(workers, workload, other):
    def lead(outcomes):
        return median_rate(outcomes[OURS]) / median_rate(outcomes[other])

    was = lead(results.load("worker")["workloads"][workload])
    now = lead(compare(workers, [OURS, other], [workload], 1, 4)[workload])
    assert now > was / 2, f"{workload}: {now:.2f} times {other}, and {was:.2f} times when it was measured in full"


@full
def test_workers(workers):
    outcomes = compare(workers, list(workers.contenders), ["noop", "wait", "cpu", "mix"], ROUNDS, SECONDS)
    lone = {"ours": with_and_without(workers, "fba_celery_flower")}
    waits = {
        name: [workers.queued(name, "noop", median_rate(rounds) / 2, SECONDS)["queued"]["noop"] for _ in range(ROUNDS)]
        for name, rounds in outcomes["noop"].items()
    }
    results.save("worker", {"rounds": ROUNDS, "seconds": SECONDS, "workloads": outcomes, "without_flower": lone, "queued": waits})


def with_and_without(workers, container):
    """Return the outcomes of tasks that do nothing, by turns while a container of the stack runs and while it does not."""
    found = {"with": [], "without": []}
    for _ in range(ROUNDS):
        for state, verb in (("without", "stop"), ("with", "start")):
            workers.host.check_output(f"docker {verb} {container}")
            found[state].append(outcome(workers.rate(OURS, ["noop"], SECONDS), "noop"))
    return found


@full
def test_servers(stack):
    with Load(stack.host):
        found = api.compare(api.Bench(stack.host, workers=1), ROUNDS, SECONDS)
    results.save("api", {"rounds": ROUNDS, "seconds": SECONDS, "targets": found})
