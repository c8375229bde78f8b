"""Faults, one after the other and then at random, while tasks are submitted: nothing is lost, nothing is done twice, all heals by itself.

On the fleet of the scenario `cluster`. The account is printed, and kept as JSON where FBA_FAULTS_REPORT names a file.
"""

import inspect
import json
import os
import random
import secrets
import sys
import time
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import faults  # noqa: E402
from submissions import Submissions  # noqa: E402

ROUNDS = int(os.environ.get("FBA_FAULTS_ROUNDS", "0"))
"""How often each fault comes once more, in an order of its own each time."""

TASKS = int(os.environ.get("FBA_FAULTS_TASKS", "0"))
"""Least number of tasks that are submitted in all."""

RATE = float(os.environ.get("FBA_FAULTS_RATE", "4"))
"""Tasks a second. All hosts share the machine."""

SEED = int(os.environ.get("FBA_FAULTS_SEED", str(secrets.randbits(32))))

HEALED = 60
"""Seconds that the stack has from the end of a fault."""

# One of a kind; FBA_FAULTS_ROUNDS brings the others too
SHORT = (
    faults.worker_process,
    faults.pool_child,
    faults.deaf_worker,
    faults.broker_killed,
    faults.broker_frozen,
    faults.broker_disk,
    faults.redis_killed,
    faults.redis_emptied,
    faults.postgres_killed,
    faults.server_killed,
    faults.nginx_killed,
    faults.beat_frozen,
)


@pytest.fixture(scope="module")
def submissions(fleet):
    """The tasks. What became of them is known when they have ended: see the last test."""
    door = fleet.door
    stream = Submissions(door.url, "admin", door.secrets["fba_app_admin_password"], fleet["data"], RATE)
    stream.__enter__()
    try:
        yield stream
    finally:
        if not stream.stopping.is_set():
            stream.__exit__()


@pytest.fixture(scope="module")
def healings():
    """Of each fault that came: its name, and the seconds from its end until tasks flowed, and until all was whole."""
    return []


@pytest.fixture(scope="module")
def poison(fleet, submissions, log_in_at):
    """A task that kills who runs it, each time. It has the time of all faults to end, among all the others."""
    return log_in_at(fleet.door).submit("poison", {"identity": "poison"})


def wait_for(condition, moment, seconds):
    """Wait until a condition holds; return the seconds since the moment, None if it does not within that time."""
    while time.monotonic() - moment < seconds:
        if condition():
            return round(time.monotonic() - moment, 1)
        time.sleep(0.5)
    return None


def survive(fleet, submissions, healings, fault, reboot):
    """Let a fault come, and see that everything goes on after it."""
    fault(fleet, reboot) if "reboot" in inspect.signature(fault).parameters else fault(fleet)
    end = time.monotonic()
    flowing = wait_for(lambda: submissions.flows_since(end) is not None, end, HEALED)
    flows = flowing and round(submissions.flows_since(end), 1)
    whole = wait_for(lambda: faults.is_whole(fleet), end, HEALED)
    healings.append({"fault": fault.__name__, "what": inspect.getdoc(fault).splitlines()[0], "flows": flows, "whole": whole})
    assert flows is not None, f"no task is done {HEALED} s after the end of {fault.__name__}: {list(faults.complaints(fleet))}"
    assert whole is not None, f"{HEALED} s after the end of {fault.__name__}: {list(faults.complaints(fleet))}"


@pytest.mark.parametrize("fault", faults.ALL if ROUNDS else SHORT, ids=lambda fault: fault.__name__)
def test_it_heals(fleet, submissions, healings, poison, reboot, fault):
    survive(fleet, submissions, healings, fault, reboot)


@pytest.mark.skipif(not ROUNDS, reason="the long version: FBA_FAULTS_ROUNDS")
def test_it_heals_in_any_order(fleet, submissions, healings, reboot, capsys):
    order = random.Random(SEED)
    with capsys.disabled():
        print(f"\nthe order is that of FBA_FAULTS_SEED={SEED}")
    for _round in range(ROUNDS):
        for fault in order.sample(faults.ALL, len(faults.ALL)):
            survive(fleet, submissions, healings, fault, reboot)
            time.sleep(order.uniform(0, 10))


def test_a_poisonous_task_has_ended(fleet, log_in_at, poison, wait_until):
    client = log_in_at(fleet.door)
    wait_until(lambda: client.see(poison)["state"] == "failed", timeout=180, what="it is given up on")
    assert "Its worker was lost" in client.see(poison)["error"]
    assert fleet["data"].sql("SELECT count(*) FROM effects WHERE identity = 'poison'") == "0"


def test_nothing_is_lost_and_nothing_is_done_twice(fleet, submissions, healings, wait_until, capsys):
    while len(submissions.begun) < TASKS:
        time.sleep(1)
    submissions.__exit__()
    wait_until(lambda: submissions.all_ended(), timeout=180, what="every task has ended")
    report = submissions.account()
    report |= {"seed": SEED, "rate": RATE, "faults": healings}
    with capsys.disabled():
        print(f"\n{'FAULT':<20}{'FLOWS':>8}{'WHOLE':>8}   seconds after its end")
        for each in healings:
            print(f"{each['fault']:<20}{each['flows']!s:>8}{each['whole']!s:>8}   {each['what']}")
        print(
            f"{report['submitted']} submitted, {report['accepted']} accepted, {report['done']} done, {len(report['lost'])} lost, "
            f"{len(report['twice'])} done twice, {report['refused']} refused with 503, {len(report['unknown'])} unknown"
        )
        print(f"tries: {report['tries']}; states: {report['states']}")
    if path := os.environ.get("FBA_FAULTS_REPORT"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    assert report["accepted"] > 100
    assert not report["lost"]
    assert not report["twice"]
    assert report["done"] == report["accepted"]
    assert report["states"] == {"succeeded": report["accepted"]}
    assert not (report["unknown"] or report["unanswered"] or report["refused_but_done"])
