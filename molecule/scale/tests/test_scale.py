"""How long playbooks take with more and more hosts of workers, and what a release brings over the wire: part of `make bench`.

The hosts have Docker and nothing else before the first test. They are added as anybody would add them: they come into the inventory, and
`site.yml` is run for them.
"""

import contextlib
import os
import subprocess

import pytest
import testinfra
import variants
import yaml

from bench import results
from bench.playbooks.run import measure, received

from conftest import Stack, playbook_command

MOST = int(os.environ.get("FBA_BENCH_HOSTS", "4"))
"""Hosts of workers at the end: 4, or 8."""

SIZES = [size for size in (1, 2, 4, 8) if size <= MOST]
ROUNDS = 2
"""Of a deploy that has nothing to do, with the fewest and with the most hosts. What replaces workers is done there as well. In between,
hosts join, and one more deploy has nothing to do."""
TURNS = 3
"""Of a deploy that has nothing to do, with the fewest and with the most hosts by turns: what is compared, because minutes later the same
deploy on the same hosts has taken a fifth more or less."""
PART = "fleet" if MOST == 4 else "fleet-8"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    """inventory(size): the options that put so many hosts into the group `worker`."""
    folder = tmp_path_factory.mktemp("inventories")

    def write(size):
        file = folder / f"{size}.yml"
        file.write_text(yaml.safe_dump({"worker": {"hosts": {name: {} for name in workers(size)}}}), encoding="utf-8")
        return ("-i", str(file))

    return write


def workers(size, since=0):
    """Return the names of the hosts of workers, from one of the sizes to another."""
    return [f"node{number}" for number in range(since + 1, size + 1)]


def play(playbook, *arguments):
    """Measure a playbook on the hosts."""
    run = measure(*playbook_command(playbook, *arguments))
    print(f"{playbook} {' '.join(arguments)}: {run}", flush=True)
    return run


def release(size, *options):
    """Measure a release, with the most `bytes` that a host of workers has received meanwhile: the image, and what the stack has to say."""
    hosts = [testinfra.get_host(f"docker://{name}") for name in workers(size)]
    before = received(hosts)
    run = play("release.yml", *options)
    return run | {"bytes": max(b - a for a, b in zip(before, received(hosts), strict=True))}


def test_more_and_more_hosts(inventory, sources):
    runs = {}
    before, source = 0, sources("plain")
    for size in SIZES:
        options = inventory(size)
        joined = () if not before else ("--limit", ",".join(workers(size, before)))
        now = {"join" if before else "first": [play("site.yml", *options, *source, *joined)]}
        end = size in (SIZES[0], SIZES[-1])
        now["no-op"] = [play("site.yml", *options, *source) for _ in range(ROUNDS if end else 1)]
        assert all(run["changed"] == 0 for run in now["no-op"])
        if end:
            now["variable"] = [play("site.yml", *options, *source, "-e", '{"worker_log_tasks": true}')]
            source = sources(f"release{size}", variants.mark(size))
            now["release"] = [release(size, *options, *source)]
        for name in ["hub", *workers(size)]:
            stack = Stack(testinfra.get_host(f"docker://{name}"), door="hub")
            assert stack.healthy() == set(stack.containers())
        runs[str(size)] = now
        before = size
    results.save(PART, {"rounds": ROUNDS, "hosts": runs})


@contextlib.contextmanager
def at_rest(hosts):
    """Let hosts do nothing for a while, as if they were not there."""
    if hosts:
        subprocess.run(["docker", "pause", *hosts], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        if hosts:
            subprocess.run(["docker", "unpause", *hosts], check=True, stdout=subprocess.DEVNULL)


def test_few_and_many_hosts_by_turns(inventory, sources):
    source = sources(f"release{MOST}", variants.mark(MOST))
    turns = {str(size): [] for size in (SIZES[0], SIZES[-1])}
    for _ in range(TURNS):
        for size in map(int, turns):
            with at_rest(workers(MOST, size)):
                # The packet filters learn who is there; this one is not counted
                play("site.yml", *inventory(size), *source)
                run = play("site.yml", *inventory(size), *source)
            assert run["changed"] == 0
            turns[str(size)].append(run)
    before = {name: value for name, value in results.load(PART).items() if name not in ("date", "machine")}
    results.save(PART, {**before, "turns": turns})
