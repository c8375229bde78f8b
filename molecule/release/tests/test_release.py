"""Releases and rollbacks under a steady load: nobody notices, nothing is lost, and what goes wrong goes back.

On the fleet of the scenario `cluster`, in this order: the load begins with the first test and ends with the last.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter

import pytest
import variants
from traffic import Traffic

from conftest import playbook_command

ROUNDS = int(os.environ.get("FBA_RELEASE_ROUNDS", "0"))
"""Further releases and rollbacks, each a pair; `make soak` makes them ten in all."""

SCALE = float(os.environ.get("FBA_RELEASE_LOAD", "0.25"))
"""Of the load's usual rates. All hosts, and Ansible, share the machine with it."""


@pytest.fixture(scope="module")
def traffic(fleet):
    """The load. What came of it is known when it has ended: see the last test."""
    door = fleet.door
    load = Traffic(door.url, "admin", door.secrets["fba_app_admin_password"], scale=SCALE)
    load.__enter__()
    try:
        load.wait_for(50)
        yield load
    finally:
        end(load)


FIRST = (variants.mark(1), variants.adds_a_kind(), variants.changes_a_signature())

REGISTRY = """
import json, pathlib
root = pathlib.Path("/var/lib/docker/volumes/fba_registry/_data/docker/registry/v2")
blob = lambda digest: root / "blobs/sha256" / digest[7:9] / digest[7:] / "data"
tags, incomplete = {}, []
for link in (root / "repositories").glob("**/_manifests/tags/*/current/link"):
    repository, tag = str(link.parents[4].relative_to(root / "repositories")), link.parents[1].name
    tags.setdefault(repository, []).append(tag)
    manifest = json.loads(blob(link.read_text()).read_text())
    incomplete += [tag for part in [manifest["config"], *manifest["layers"]] if not blob(part["digest"]).exists()]
print(json.dumps([tags, incomplete]))
"""
"""Prints what the stack's registry has: repository to tags, and the tags of images that lack a part."""

soak = pytest.mark.skipif(not ROUNDS, reason="the long version, in make soak")


def end(load):
    """End the load, once."""
    if load.report is None:
        load.__exit__(None, None, None)


@pytest.fixture(scope="module")
def schedules():
    """The schedules that were made; the last test deletes them."""
    return []


def version(fleet):
    """Return which release answers."""
    return fleet.door.get("/openapi.json")[1]["info"]["version"]


def record(fleet, host="app1"):
    """Return a host's record of releases."""
    return json.loads(fleet[host].host.check_output("cat /var/lib/fba/releases.json"))


def last_run(fleet, host="app1"):
    """Return the last line of a host's deploy log."""
    return json.loads(fleet[host].host.check_output("tail -n 1 /var/log/fba/deploys.jsonl"))


def images(fleet):
    """Return the images that the application's containers have, on all hosts."""
    names = ("fba_server_1", "fba_celery_worker", "fba_celery_beat")
    return Counter(each["Config"]["Image"] for host in fleet.members() for name, each in fleet[host].containers().items() if name in names)


def is_whole(fleet, image):
    """Return whether all of the application runs one image, is healthy, and nothing is left behind."""
    spare = [host for host in fleet.members() if "fba_server_spare" in fleet[host].containers()]
    sick = [host for host in fleet.members() if fleet[host].healthy() != set(fleet[host].containers())]
    return (set(images(fleet)), spare, sick) == ({image}, [], [])


def interrupt(run):
    """Press Ctrl-C as in a terminal, which tells the whole process group; once more if Ansible does not end.

    Ansible ends its workers in a way that can leave a lock of its own held, and then waits for that lock until it is interrupted again.
    """
    for _ in range(2):
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGINT)
        try:
            run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            continue
        return
    os.killpg(run.pid, signal.SIGKILL)
    pytest.fail("Ansible has not ended after two interrupts")


def assert_unnoticed(fleet, traffic):
    """Fail if a request has failed so far, with what the servers that are there have to say of it."""
    failures = traffic.failures()
    said = {}
    if failures:
        for stack in fleet.of("server"):
            said[stack.name] = stack.host.run("docker logs fba_server_1 2>&1 | grep -E 'WARNING|ERROR' | tail -n 20").stdout
    assert failures == [], (failures[:5], said)


def goes_back(fleet, traffic, options, reasons):
    """Try a release that fails, and return its output: everything is as it was before."""
    before, started, names = record(fleet), version(fleet), images(fleet)
    run = fleet.door.play("release.yml", *options)
    assert run.returncode != 0
    for reason in reasons:
        assert re.search(reason, run.stdout), run.stdout[-6000:]
    assert (record(fleet), version(fleet), images(fleet)) == (before, started, names)
    assert is_whole(fleet, next(iter(names)))
    assert not fleet["app1"].host.file("/var/lib/fba/lock.json").exists
    assert_unnoticed(fleet, traffic)
    return run.stdout


def test_a_migration_that_fails_leaves_what_was_there(fleet, traffic, sources):
    goes_back(
        fleet, traffic, sources("migration", variants.mark(3), variants.failing_migration()), ["fba_migrate", "what ran before goes on"]
    )
    assert last_run(fleet)["outcome"] == "failed"
    assert fleet["data"].sql("SELECT to_regclass('half_done') IS NULL") == "t"


def test_a_release_that_is_interrupted_goes_on_and_nobody_notices(fleet, traffic, sources, schedules, wait_until, log_in_at):
    """It brings a kind of task that earlier workers do not know, and another signature of one that they do."""
    # Something for the scheduler to do
    often = {"name": f"often {time.time():.0f}", "task": {"kind": "sleep", "arguments": {"duration": 0}}, "every": 10}
    schedules.append(log_in_at(fleet.door).expect(201, "POST", "/schedules", json=often).json()["id"])
    source = sources("first", *FIRST)
    before = record(fleet)["current"] if fleet["app1"].host.file("/var/lib/fba/releases.json").exists else ""
    # They last longer than the release until it is interrupted, and enough of them for each process of each worker to have one
    client = log_in_at(fleet.door)
    long = [client.submit("sleep", {"duration": 180}) for _ in range(16)]
    command, environment = playbook_command("release.yml", *source, "-e", '{"release_reason": "greetings for all"}')
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as run:
        try:
            wait_until(
                lambda: "fba_server_spare" in fleet["app1"].healthy() or run.poll() is not None, timeout=300, what="the first spare serves"
            )
            assert run.poll() is None, run.stdout.read()
            # Nobody else can come in between
            other = fleet.door.play("release.yml", *source, "-e", "release_operator=ben@desk")
            assert other.returncode != 0
            assert re.search(r"has locked the stack since \S+Z for release \(greetings for all\)", other.stdout), other.stdout[-2000:]
        finally:
            interrupt(run)
    # The old ones run what they had begun, and the new ones take what comes
    leaving = {stack.name: stack.containers()["fba_celery_worker_leaving"]["State"]["Running"] for stack in fleet.of("worker")}
    assert leaving == {"work1": True, "work2": True}
    assert {stack.name for stack in fleet.of("worker") if "fba_celery_worker" in stack.healthy()} == {"work1", "work2"}
    assert {client.see(task)["state"] for task in long} == {"running"}
    resumed = fleet.door.play("release.yml", *source)
    assert resumed.returncode == 0, resumed.stdout[-5000:]
    assert version(fleet) == "1.0.1"
    now = record(fleet)
    image = now["releases"][0]["image"]
    assert is_whole(fleet, image)
    assert {(task["state"], task["attempt"]) for task in map(client.see, long)} == {("succeeded", 1)}
    assert now["releases"][0]["previous"] == before or not before
    assert {record(fleet, host)["current"] for host in fleet.members()} == {now["current"]}
    log = [json.loads(line) for line in fleet["app1"].host.check_output("tail -n 2 /var/log/fba/deploys.jsonl").splitlines()]
    assert [(line["verb"], line["outcome"]) for line in log] == [("release", "interrupted"), ("release", "done")]
    assert not fleet["app1"].host.file("/var/lib/fba/lock.json").exists
    # Of the release that failed before it, nothing is kept
    tags, incomplete = json.loads(fleet["app1"].host.check_output(f"python3 -c '{REGISTRY}'"))
    assert set(tags["fba/app"]) == {each["release"] for each in now["releases"]}
    assert incomplete == []
    assert_unnoticed(fleet, traffic)


def test_a_rollback_leaves_the_tasks_of_the_newer_release_done(fleet, traffic, log_in_at):
    client = log_in_at(fleet.door)
    greeted = [client.submit("greet", {"name": f"user {number}"}) for number in range(20)]
    run = fleet.door.play("rollback.yml")
    assert run.returncode == 0, run.stdout[-5000:]
    assert version(fleet) == "1.0.0"
    now = record(fleet)
    (image,) = [each["image"] for each in now["releases"] if each["release"] == now["current"]]
    assert is_whole(fleet, image)
    assert last_run(fleet)["verb"] == "rollback"
    # In the reverse order
    assert [step["step"] for step in last_run(fleet)["steps"]] == ["servers", "beat", "retired containers"]
    assert {client.see(task)["state"] for task in greeted} == {"succeeded"}
    assert_unnoticed(fleet, traffic)


def test_a_release_that_answers_with_errors_goes_back_by_itself(fleet, traffic, sources):
    """Its workers serve already when that comes out. Safe requests that it fails are asked of the others, so nobody sees an error."""
    # Ten requests a second, of which a new server gets some and fails one in four: in five seconds, three errors are a matter of luck
    options = (*sources("errors", variants.mark(2), variants.answers_500()), "-e", '{"server_trial_seconds": 20}')
    output = goes_back(fleet, traffic, options, [r"answered \d+ of \d+ requests with an error", "has gone back"])
    assert "GET /" in output
    assert last_run(fleet)["outcome"] == "went back"
    assert "requests with an error" in last_run(fleet)["failures"][0]["message"]
    assert [step["step"] for step in last_run(fleet, "work1")["steps"]] == ["workers", "back: worker"]


@soak
def test_the_application_that_crashes_at_start_is_not_waited_for(fleet, traffic, sources, capsys):
    started = time.monotonic()
    goes_back(
        fleet,
        traffic,
        sources("crash", variants.mark(4), variants.crashes_at_start()),
        ["does not stay up", "does_not_exist|ImportError|Error"],
    )
    with capsys.disabled():
        print(f"\na release that crashes at start has gone back after {time.monotonic() - started:.0f} s")


@soak
def test_many_releases_and_rollbacks(fleet, traffic, sources, capsys):
    for number in range(ROUNDS):
        release = fleet.door.play("release.yml", *sources(f"round{number}", variants.mark(100 + number)))
        assert release.returncode == 0, release.stdout[-5000:]
        assert version(fleet) == f"1.0.{100 + number}"
        rollback = fleet.door.play("rollback.yml")
        assert rollback.returncode == 0, rollback.stdout[-5000:]
        assert version(fleet) == "1.0.0"
        with capsys.disabled():
            print(f"\nround {number + 1} of {ROUNDS}: {len(traffic.failures())} of {len(traffic.records)} requests have failed")
        assert_unnoticed(fleet, traffic)


@soak
def test_an_incompatible_migration_is_not_gone_back_behind(fleet, traffic, sources):
    """The last release, as nothing goes back from it."""
    run = fleet.door.play(
        "release.yml", *sources("incompatible", variants.mark(5), variants.incompatible_migration("greetings are no more"))
    )
    assert run.returncode == 0, run.stdout[-5000:]
    started = fleet.started()
    refused = fleet.door.play("rollback.yml")
    assert refused.returncode != 0
    assert "is marked as not compatible: greetings are no more" in refused.stdout
    assert fleet.started() == started


def test_nobody_has_noticed(fleet, traffic, schedules, log_in_at, capsys):
    for schedule in schedules:
        log_in_at(fleet.door).expect(204, "DELETE", f"/schedules/{schedule}")
    end(traffic)
    report = traffic.report
    # Not only where the test fails: these are the numbers of docs/releases.md
    with capsys.disabled():
        print("", traffic.table(), sep="\n")
    assert report["complete"]
    assert report["failed"] == 0, report["failures"]
    assert report["requests"] > 1000
    tasks = report["tasks"]
    assert tasks["accepted"] == tasks["succeeded"] > 200
    assert not (tasks["lost"] or tasks["failed"] or tasks["accepted_twice"] or tasks["effects"]["not_once"])
    # At no time two schedulers: each tick of each schedule was made once, on whichever host
    ticks = Counter()
    for stack in fleet.of("beat"):
        log = stack.host.run("cat /var/log/fba/fba_celery_beat/beat.log*").stdout
        ticks.update(re.findall(r"the schedule (\S+ \(\S+ ?\S*\)) has added a task", log))
    assert len(ticks) > 20
    assert [tick for tick, times in ticks.items() if times > 1] == []
