"""The trial of new servers, with a program in docker's place that prints a log as docker does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.modules import upstream_trial

from conftest import _COLLECTIONS, ROOT, ModuleRun

NEW = "172.30.10.12:8001"
OLD = "172.30.10.11:8001"
Run = Callable[..., ModuleRun]


def access(upstream: str = NEW, status: str = "200", request: str = "GET /x?token=hunter2 HTTP/1.1", answered: str = "200") -> str:
    """A line of the access log."""
    client = f'10.0.0.9 - - [21/Nov/2026:14:42:38 +0000] "{request}" {answered} 71 "http://stack/?token=hunter2" "curl/7.88.1"'
    return f'{client} upstream="{upstream}" status="{status}" seconds="0.015"'


def earlier_format() -> str:
    """A line of the access log as nginx wrote it before it named servers."""
    return access().partition(" upstream=")[0].replace('" 200', '" 500')


class Docker:
    """A docker command of which the tests say what it does. It notes its arguments and process id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script("exit 0")

    def script(self, logs: str, running: str = "true") -> None:
        """Let `docker logs` do something in the shell; the variable follow is empty where it was not asked to follow."""
        path = self.folder / "docker"
        path.write_text(
            f"""#!/bin/sh
cd {self.folder}
case $1 in inspect) echo {running}; exit ;; esac
echo "$*" >> calls
echo $$ >> pids
follow=; case "$*" in *--follow*) follow=1 ;; esac
{logs}
"""
        )
        path.chmod(0o755)

    def log(self, *lines: str, then: str = "[ -z $follow ] || exec sleep 100", stamped: bool = True) -> None:
        """Let the log have these lines, each a second after the one before."""
        text = "".join(f"{f'2026-11-21T14:42:{second:02}.000000000Z ' * stamped}{line}\n" for second, line in enumerate(lines))
        (self.folder / "log").write_text(text)
        self.script(f"cat log; {then}")

    @property
    def calls(self) -> list[str]:
        """The arguments of each call."""
        return (self.folder / "calls").read_text().splitlines()

    def left(self) -> list[int]:
        """The processes that have not ended."""
        pids = [int(line) for line in (self.folder / "pids").read_text().split()]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """The command, found first."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Docker(tmp_path)


@pytest.fixture
def run(run_module: Run, docker: Docker) -> Run:
    """Run the module; nothing that it prints may have the secret, and nothing that it started may be left."""

    def run(seconds: float = 0.5, check_mode: bool = False, **args: Any) -> ModuleRun:
        wanted = {"container": "fba_nginx", "upstreams": [NEW], "since": time.time(), "seconds": seconds, "errors": 3, "error_rate": 0.05}
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
        try:
            done = run_module(upstream_trial.main, {**wanted, **args}, check_mode=check_mode)
        finally:
            for number, handler in zip((signal.SIGTERM, signal.SIGHUP), handlers, strict=True):
                signal.signal(number, handler)
        assert "hunter2" not in done.text
        assert done.answer.get("changed", False) is False
        assert not (docker.folder / "pids").exists() or docker.left() == []
        return done

    return run


def counted(answer: dict[str, Any]) -> tuple[int, int, bool]:
    """What the trial has seen, and whether it is passed."""
    return answer["requests"], answer["error_count"], answer["passed"]


def test_without_traffic_the_trial_is_passed(run: Run, docker: Docker) -> None:
    docker.log()
    answer = run().answer
    assert counted(answer) == (0, 0, True)
    assert (answer["rate"], answer["samples"]) == (0, [])


def test_only_the_servers_on_trial_count(run: Run, docker: Docker) -> None:
    another = "172.30.10.13:8001"
    docker.log(
        access(),
        access(OLD, "500"),
        access("-", "-"),
        earlier_format(),
        access(another, "404"),
        # An address that only begins or ends like one on trial
        access(NEW + "0", "500"),
        access("1" + NEW, "500"),
        "2026/11/21 14:42:38 [error] 8#8: *3 connect() failed",
        "",
    )
    assert counted(run(upstreams=[NEW, another]).answer) == (2, 0, True)


@pytest.mark.parametrize(
    ("upstream", "status", "found"),
    [
        (NEW, "500", (1, 1)),
        (NEW, "503", (1, 1)),
        (NEW, "499", (1, 0)),
        # Not reached, and then another one was asked
        (f"{NEW}, {OLD}", "502, 200", (1, 1)),
        (f"{OLD}, {NEW}", "504, 200", (1, 0)),
        (f"{NEW}, {NEW}", "502, 200", (2, 1)),
        # Redirected inside
        (f"{NEW} : {OLD}", "200 : 500", (1, 0)),
        (f"{OLD}, {NEW} : {NEW}", "502, 500 : 502", (2, 2)),
        # The client went away
        (NEW, "-", (0, 0)),
        (f"{NEW}, {OLD}", "504, -", (1, 1)),
        # None was there to be asked
        (f"{NEW}, server", "502, 502", (1, 1)),
    ],
)
def test_each_server_that_was_asked_counts(run: Run, docker: Docker, upstream: str, status: str, found: tuple[int, int]) -> None:
    docker.log(access(upstream, status))
    answer = run(errors=100).answer
    assert (answer["requests"], answer["error_count"]) == found


def test_what_a_client_sends_is_not_taken_for_what_nginx_says(run: Run, docker: Docker) -> None:
    """nginx writes a quote as \\x22."""
    faked = f"GET /\\x22 500 1 \\x22-\\x22 upstream=\\x22{NEW}\\x22 status=\\x22500\\x22 seconds=\\x221\\x22 upstream={NEW} HTTP/1.1"
    docker.log(access(OLD, "200", faked), access(NEW, "200", faked))
    assert counted(run(errors=1).answer) == (1, 0, True)


@pytest.mark.parametrize(
    ("good", "bad", "passed"),
    [(0, 2, True), (0, 3, False), (57, 3, True), (56, 3, False), (200, 3, True)],
    ids=["few errors", "enough errors", "at the rate", "over the rate", "under the rate"],
)
def test_number_and_rate_have_both_to_be_exceeded(run: Run, docker: Docker, good: int, bad: int, passed: bool) -> None:
    docker.log(*[access()] * good, *[access(status="500")] * bad)
    (docker.folder / "log").write_text(re.sub(r"42:(\d+)\.", r"42:01.\1", (docker.folder / "log").read_text()))
    answer = run().answer
    assert counted(answer) == (good + bad, bad, passed)
    assert answer.get("failed", False) is not passed


def test_a_failed_trial_says_who_how_often_and_what(run: Run, docker: Docker) -> None:
    bad = [
        access(status="500"),
        access(status="500"),
        access(status="502", request="POST /y/z HTTP/1.1"),
        access(status="500", request="-"),
    ]
    docker.log(*[access()] * 5, *bad)
    answer = run(errors=4).answer
    expected = "answered 4 of 9 requests with an error (limit 5 %): GET /x 500, POST /y/z 502, a malformed request 500"
    assert answer["msg"] == f"{NEW} {expected}"
    assert answer["rate"] == 0.4444
    assert len(answer["samples"]) == 4
    assert '"GET /x HTTP/1.1" 200 71 "http://stack/"' in answer["samples"][0]


def test_five_samples_are_enough(run: Run, docker: Docker) -> None:
    docker.log(*[access(status="500", request=f"GET /{number} HTTP/1.1") for number in range(8)])
    answer = run(errors=7).answer
    assert len(answer["samples"]) == 5
    assert answer["msg"].endswith("GET /3 500, GET /4 500, and others")


def test_a_trial_ends_as_soon_as_it_is_failed(run: Run, docker: Docker) -> None:
    docker.log(*[access(status="500")] * 9)
    began = time.monotonic()
    assert counted(run(seconds=60).answer) == (3, 3, False)
    assert time.monotonic() - began < 20


def test_a_trial_lasts_its_time_and_sees_what_comes(run: Run, docker: Docker) -> None:
    late = f"sleep 1; echo '2026-11-21T14:42:59.000000000Z {access(status='500')}'; exec sleep 100"
    docker.log(access(), then=f"[ -z $follow ] || {{ {late}; }}")
    began = time.monotonic()
    assert counted(run(seconds=2).answer) == (2, 1, True)
    assert 2 <= time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("later", "found"),
    [
        (["500", "500"], (4, 3, False)),
        # As soon as there are enough good ones, it is over
        (["200"] * 30, (20, 1, True)),
        ([], (2, 1, True)),
    ],
    ids=["it fails", "it was one of many", "nothing more comes"],
)
def test_a_trial_in_doubt_goes_on(run: Run, docker: Docker, later: list[str], found: tuple[int, int, bool]) -> None:
    lines = "".join(f"echo '2026-11-21T14:43:{number:02}.000000000Z {access(status=status)}'; " for number, status in enumerate(later))
    docker.log(access(status="500"), access(), then=f"[ -z $follow ] || {{ sleep 1; {lines} exec sleep 100; }}")
    began = time.monotonic()
    assert counted(run(seconds=0.5, doubt_seconds=2).answer) == found
    assert (time.monotonic() - began >= 2.5) == (not later)


def test_a_trial_without_a_doubt_is_not_longer(run: Run, docker: Docker) -> None:
    docker.log(*[access()] * 20, access(status="500"), then="[ -z $follow ] || exec sleep 100")
    began = time.monotonic()
    assert counted(run(seconds=1, doubt_seconds=60).answer) == (21, 1, True)
    assert time.monotonic() - began < 20


def test_a_line_that_comes_in_pieces_is_one(run: Run, docker: Docker) -> None:
    line = f"2026-11-21T14:42:59.000000000Z {access(status='500')}"
    docker.log(then=f"[ -z $follow ] || {{ printf %s '{line[:90]}'; sleep 0.3; printf '%s\\n' '{line[90:]}'; exec sleep 100; }}")
    assert counted(run(seconds=2).answer) == (1, 1, True)


def test_a_trial_that_is_over_when_it_begins_reads_what_there_was(run: Run, docker: Docker) -> None:
    docker.log(access(), access(status="500"))
    assert counted(run(since=time.time() - 100, seconds=10).answer) == (2, 1, True)
    (call,) = docker.calls
    assert "--follow" not in call


def test_docker_is_asked_for_the_time_of_the_trial_alone(run: Run, docker: Docker) -> None:
    docker.log(access())
    since = time.time() - 1
    run(since=since, seconds=1.5)
    follow, rest = docker.calls
    assert follow == f"logs --timestamps --since={since:.9f} --follow fba_nginx"
    # What was read is not counted again
    assert rest == f"logs --timestamps --since=2026-11-21T14:42:00.000000000Z --until={since + 1.5:.9f} fba_nginx"


def test_a_log_that_docker_has_lost_is_followed_again(run: Run, docker: Docker) -> None:
    docker.log(access(), access(status="500"), then=":")
    assert counted(run(seconds=1.5).answer) == (2, 1, True)
    assert len(docker.calls) > 2


@pytest.mark.parametrize(
    ("script", "running", "said"),
    [
        ("echo 'Error: No such container: fba_nginx' >&2; exit 1", "false", "Error: No such container: fba_nginx"),
        ("exit 0", "false", "the container has ended"),
        ("exit 3", "true", "docker ended with 3"),
    ],
)
def test_what_cannot_be_watched_is_not_passed(run: Run, docker: Docker, script: str, running: str, said: str) -> None:
    docker.script(script, running)
    answer = run(seconds=60).answer
    assert (answer["failed"], answer["passed"]) == (True, False)
    assert answer["msg"] == f"The log of fba_nginx cannot be followed: {said}"


def test_a_host_without_docker_is_told(run: Run, docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(docker.folder / "nowhere"))
    assert "cannot be followed" in run().answer["msg"]


def test_a_child_that_does_not_listen_is_killed(run: Run, docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_trial, "GRACE", 0.2)
    docker.log(*[access(status="500")] * 3)
    # The trap has to be set before the trial is over
    docker.script("trap '' TERM; cat log; while [ $follow ]; do sleep 0.1; done")
    assert counted(run().answer) == (3, 3, False)


def run_apart(first: str = "") -> subprocess.Popen[bytes]:
    """Run the module for ever in a process of its own, after a line of Python."""
    code = f"""
import ansible.module_utils.testing as t, ansible_collections.fba.stack.plugins.modules.upstream_trial as m
{first}
with t.patch_module_args({{'container': 'c', 'upstreams': [], 'since': 0, 'seconds': 1e10, 'errors': 1, 'error_rate': 0}}): m.main()
"""
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": _COLLECTIONS.name}, cwd=ROOT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_child_ends_with_a_module_that_is_told_to_end(docker: Docker, number: signal.Signals) -> None:
    docker.log(access())
    process = run_apart()
    try:
        for _ in range(300):
            if (docker.folder / "pids").exists() and docker.left():
                break
            time.sleep(0.1)
        assert docker.left()
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert docker.left() == []
    finally:
        process.kill()
        process.wait()


def test_the_child_ends_with_a_module_that_is_told_to_end_while_it_starts_it(docker: Docker) -> None:
    # Where a signal is handled that comes while the child is started: before its id is known to anybody
    docker.log(access())
    process = run_apart("start = m.subprocess.Popen; m.subprocess.Popen = lambda *a, **k: (start(*a, **k), m.signal.raise_signal(15))[0]")
    try:
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not (docker.folder / "pids").exists() or docker.left() == []
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"errors": 0}, "errors is 0: allowed are 1 or more"),
        ({"error_rate": 1.5}, "error_rate is 1.5: allowed are 0 to 1"),
        ({"error_rate": -0.1}, "error_rate is -0.1: allowed are 0 to 1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(run: Run, docker: Docker, args: dict[str, Any], said: str) -> None:
    assert run(**args).answer["msg"] == said
    assert not (docker.folder / "calls").exists()


def test_check_mode_does_nothing(run: Run, docker: Docker) -> None:
    docker.log(*[access(status="500")] * 9)
    assert counted(run(check_mode=True).answer) == (0, 0, True)
    assert not (docker.folder / "calls").exists()
