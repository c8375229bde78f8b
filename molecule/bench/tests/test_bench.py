"""How fast the stack is beside what people run today: `make bench` in full; `make bench-quick` fails when a ratio is half of what it was there.

On the host of the scenario `default`, which has the bench's tasks in its application afterwards.
"""

import os
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(PROJECT))
sys.path.insert(0, str(PROJECT / "molecule"))

import variants

from bench import results
from bench.worker import run as worker

ROUNDS = int(os.environ.get("FBA_BENCH_ROUNDS", "0"))
"""Of the full bench; 0 for the quick one."""

SECONDS = 10 if ROUNDS else 4
QUICK = {"noop": ["ours", "celery-5.6-gevent", "dramatiq"], "wait": ["ours", "dramatiq"]}
"""Workloads of the quick bench, and who is measured."""


@pytest.fixture(scope="module")
def host_of_tasks(tmp_path_factory):
    """The host, with the bench's tasks in the stack's application and an image of the contenders."""
    import testinfra

    from conftest import Stack

    stack = Stack(testinfra.get_host("docker://debian13"))
    source = variants.make_variant(
        PROJECT / "app", tmp_path_factory.mktemp("bench") / "app", variants.measured_tasks(PROJECT / "bench" / "worker" / "apps")
    )
    for playbook in ("site.yml", "../bench/worker/prepare.yml"):
        run = stack.play(playbook, "-e", f"fba_app_source={source}")
        assert run.returncode == 0, run.stdout
    return stack.host
