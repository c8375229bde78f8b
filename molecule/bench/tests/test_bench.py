"""How fast the stack is beside what people run today: `make bench` in full; `make bench-quick` fails when a ratio has fallen by half.

On the host of the scenario `default`, which has the bench's tasks in its application afterwards.
"""

import os
from pathlib import Path

import pytest
import testinfra
import variants

from bench import results
from bench.host import Load
from bench.worker.run import OURS, Bench, compare, median_rate

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
    outcomes = compare(workers, workers.contenders, ["noop", "wait", "cpu", "mix"], ROUNDS, SECONDS)
    results.save("worker", {"rounds": ROUNDS, "seconds": SECONDS, "workloads": outcomes})
