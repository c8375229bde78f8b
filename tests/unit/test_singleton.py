"""The election around a program, with a lock that the tests hold, and the lease that the kernel keeps a program to."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from test_container_scripts import load, until

from conftest import ROOT

FILES = ROOT / "roles" / "container" / "files"
LEASED = FILES / "leased.py"

# Goes on as fast as it can, and writes down how far it is
COUNT = """
import os, pathlib, signal, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
number = 0
while True:
    number += 1
    os.pwrite(file, str(number).encode(), 0)
"""


def boottime() -> float:
    """The clock of leases."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def script(folder: Path, code: str, name: str = "program") -> Path:
    """Write a console script for this interpreter."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


def written(path: Path) -> str:
    """What a file holds, nothing if there is none."""
    return path.read_text() if path.exists() else ""


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stopped(pid: int) -> bool:
    """Whether a process is stopped by SIGSTOP."""
    return "T (stopped)" in Path(f"/proc/{pid}/status").read_text()


# The lease


class Leased:
    """A program under leased.py, whose lease the test holds."""

    def __init__(self, *program: object, lease: float, folder: Path, **options: Any) -> None:
        read, self.grants = os.pipe()
        self.grant(lease)
        words = [sys.executable, str(LEASED), str(read), str(os.getpid()), *map(str, program)]
        self.process = subprocess.Popen(words, pass_fds=[read], start_new_session=True, cwd=folder, text=True, **options)
        os.close(read)

    def grant(self, seconds: float) -> None:
        """Let the program run from now for so long."""
        os.write(self.grants, f"{boottime() + seconds:.3f}\n".encode())


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[Callable[..., Leased]]:
    """A function that starts a program with a lease."""
    made: list[Leased] = []

    def start(*program: object, lease: float = 60.0, **options: Any) -> Leased:
        made.append(Leased(*program, lease=lease, folder=tmp_path, **options))
        return made[-1]

    yield start
    for each in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.communicate()
        with contextlib.suppress(OSError):
            os.close(each.grants)


def test_a_program_lives_as_long_as_its_lease(leased: Any, tmp_path: Path) -> None:
    start = boottime()
    program = leased(script(tmp_path, COUNT), tmp_path / "count", lease=1)
    assert program.process.wait(10) == -signal.SIGKILL
    assert 1 <= boottime() - start < 3
    assert written(tmp_path / "count")


def test_a_renewed_lease_keeps_it_alive(leased: Any, tmp_path: Path) -> None:
    program = leased(script(tmp_path, COUNT), tmp_path / "count", lease=0.6)
    for _ in range(8):
        program.grant(0.6)
        time.sleep(0.15)
        assert program.process.poll() is None
    assert program.process.wait(10) == -signal.SIGKILL


def test_frozen_past_its_lease_it_does_not_run_on(leased: Any, tmp_path: Path) -> None:
    count = tmp_path / "count"
    end = boottime() + 1.5
    program = leased(script(tmp_path, COUNT), count, lease=1.5)
    until(lambda: bool(written(count)))
    os.kill(program.process.pid, signal.SIGSTOP)
    until(lambda: stopped(program.process.pid))
    before = written(count)
    time.sleep(max(0.0, end - boottime()) + 0.1)
    os.kill(program.process.pid, signal.SIGCONT)
    assert program.process.wait(10) == -signal.SIGKILL
    assert written(count) == before


def test_a_lease_that_is_over_at_the_start_lets_nothing_run(leased: Any, tmp_path: Path) -> None:
    assert leased(script(tmp_path, COUNT), tmp_path / "count", lease=-1).process.wait(10) == -signal.SIGKILL
    assert not (tmp_path / "count").exists()


def test_no_handler_and_no_timer_of_the_programs_gets_in_the_way(leased: Any, tmp_path: Path) -> None:
    code = """
import signal, sys
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 100)
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
"""
    program = leased(script(tmp_path, code + COUNT), tmp_path / "count", lease=0.8)
    assert program.process.wait(10) == -signal.SIGKILL
    assert written(tmp_path / "count")


def test_the_end_of_the_pipe_ends_the_program_and_its_children(leased: Any, tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = "import subprocess\npathlib = __import__('pathlib')\n"
    code += f"pathlib.Path({str(child)!r}).write_text(str(subprocess.Popen(['sleep', '60']).pid))\n"
    program = leased(script(tmp_path, code + COUNT), tmp_path / "count")
    until(lambda: bool(written(tmp_path / "count")))
    assert alive(int(written(child)))
    os.close(program.grants)
    assert program.process.wait(10) == -signal.SIGKILL
    until(lambda: not alive(int(written(child))))


def test_the_end_of_its_parent_ends_the_program(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, f"{boottime() + 60}\n".encode())
    words = [str(script(tmp_path, COUNT)), str(tmp_path / "count")]
    code = "import os, subprocess, sys\n"
    code += "subprocess.Popen([sys.executable, *sys.argv[1:3], str(os.getpid()), *sys.argv[3:]], close_fds=False).wait()"
    parent = subprocess.Popen([sys.executable, "-c", code, str(LEASED), str(read), *words], pass_fds=[read], start_new_session=True)
    try:
        until(lambda: bool(written(tmp_path / "count")))
        parent.kill()
        parent.wait()
        time.sleep(0.05)
        count = written(tmp_path / "count")
        time.sleep(0.1)
        assert written(tmp_path / "count") == count
    finally:
        # The test has held the pipe's other end all the while
        os.close(read)
        os.close(write)


def test_a_parent_that_has_ended_already_lets_nothing_run(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, f"{boottime() + 60}\n".encode())
    words = [sys.executable, str(LEASED), str(read), "1", str(script(tmp_path, COUNT)), str(tmp_path / "count")]
    assert subprocess.Popen(words, pass_fds=[read], start_new_session=True).wait(10) == -signal.SIGKILL
    os.close(read)
    os.close(write)
    assert not (tmp_path / "count").exists()


@pytest.mark.parametrize("form", ["console script", "path", "module", "file", "own interpreter"])
def test_a_program_sees_what_it_would_see_by_itself(leased: Any, tmp_path: Path, form: str) -> None:
    code = "import json, sys, __main__\n"
    code += "print(json.dumps([sys.argv, sys.path[0], __name__, vars(__main__) is globals(), __spec__ and __spec__.name]))"
    (tmp_path / "bin").mkdir()
    path = script(tmp_path / "bin", code)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(code)
    words = {
        "console script": ["program"],
        "path": [str(path)],
        "module": ["python3", "-m", "package"],
        "file": ["python3", "bin/program"],
        "own interpreter": [sys.executable, "bin/program"],
    }[form]
    words += ["-m", "a  b", "--", "--x"]
    path_variable = f"{path.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path_variable}
    alone = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    output, _ = leased(*words, stdout=subprocess.PIPE, env=environment).process.communicate(timeout=10)
    assert json.loads(output) == json.loads(alone.stdout)


@pytest.mark.parametrize("words", [["python3", "-c", "print(1)"], ["python3", "-m"], ["python3"], ["no-such-program"]])
def test_what_it_cannot_run_it_refuses(leased: Any, words: list[str]) -> None:
    process = leased(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE).process
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert output == ""
    assert errors.startswith("leased: ")


@pytest.mark.parametrize(("code", "result"), [("import sys; sys.exit(3)", 3), ("1 / 0", 1), ("", 0)])
def test_a_programs_end_is_its_own(leased: Any, tmp_path: Path, code: str, result: int) -> None:
    assert leased(script(tmp_path, code), stderr=subprocess.DEVNULL).process.wait(10) == result


# The election


class HeldLock:
    """A lock that the test holds in its hands. At each wait the test's scenario goes one step on."""

    def __init__(self, singleton: Any) -> None:
        self.singleton = singleton
        self.scenario: Iterator[None] = iter(())
        self.other = False
        self.older = 0.0
        self.away = ""
        self.closed = False
        self.held = False
        self.calls: list[str] = []

    def acquire(self) -> float | None:
        self.calls.append("acquire")
        self.heard()
        self.held = not self.other
        return self.older if self.held else None

    def renew(self) -> None:
        self.calls.append("renew")
        self.heard()

    def heard(self) -> None:
        if self.away:
            raise self.singleton.Lost(self.away)

    def wait(self, seconds: float, wake: int) -> None:
        select.select([wake], [], [], min(max(0.0, seconds), 0.02))
        if next(self.scenario, self) is self:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.closed and self.held:
            raise self.singleton.Lost(self.away)

    def close(self) -> None:
        self.calls.append("close")
        self.held = False


class Node:
    """A host in the election, in this process, and a program that writes down what happens to it."""

    PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
log = pathlib.Path(sys.argv[1]).open("a", buffering=1)
def end(*_):
    time.sleep(DRAIN)
    log.write("drained\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
for number in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: log.write(f"{signal.Signals(number).name}\\n"))
log.write(f"start {os.getpid()} {subprocess.Popen(['sleep', '60']).pid}\\n")
THEN
while True:
    time.sleep(0.02)
"""

    def __init__(self, module: Any, folder: Path) -> None:
        self.module, self.folder = module, folder
        self.lock = HeldLock(module)
        self.log = folder / "log"
        self.result: int | None = None

    def run(self, scenario: Iterator[None], then: str = "", drain: float = 0.0, stop_wait: float = 20.0, lease: float = 1.0) -> None:
        """Take part in the election until the scenario is over, and then be stopped."""
        code = self.PROGRAM.replace("DRAIN", str(drain)).replace("THEN", then)
        program = [str(script(self.folder, code)), str(self.log)]
        self.lock.scenario = scenario
        node = self.module.Singleton("beat", self.lock, [sys.executable], program, stop_wait, lease)
        self.result = node.run()

    def until(self, condition: Callable[[], bool]) -> Iterator[None]:
        """Let the election go on until something is so."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            yield

    def starts(self) -> list[tuple[int, int]]:
        """The processes of each start: the program and its child."""
        words = [line.split() for line in written(self.log).splitlines() if line.startswith("start")]
        return [(int(program), int(child)) for _, program, child in words]

    def pid(self) -> int:
        """The process whose sleep is looked at."""
        return int((self.folder / "beat.pid").read_text())


@pytest.fixture
def singleton() -> Any:
    """The script."""
    return load(FILES / "singleton.py")


@pytest.fixture
def node(singleton: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A host that nothing has happened to."""
    monkeypatch.setattr(singleton, "FOLDER", tmp_path)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield Node(singleton, tmp_path)
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_who_does_not_get_the_lock_stands_by_until_it_is_free(node: Node, capsys: Any) -> None:
    def scenario() -> Iterator[None]:
        yield from node.until(lambda: node.lock.calls.count("acquire") > 3)
        assert node.pid() == os.getpid()
        assert not node.log.exists()
        node.lock.other = False
        yield from node.until(lambda: bool(node.starts()))
        assert node.pid() == node.starts()[0][0]

    node.lock.other = True
    node.run(scenario())
    assert capsys.readouterr().out.splitlines() == ["singleton: beat stands by", "singleton: beat leads here"]
    assert node.pid() == os.getpid()


@pytest.mark.parametrize(("closed", "lease"), [(False, 1.0), (True, 60.0)], ids=["by a renewal", "while waiting"])
def test_who_loses_the_lock_kills_the_program_and_its_children_and_stands_by(node: Node, capsys: Any, closed: bool, lease: float) -> None:
    def scenario() -> Iterator[None]:
        yield from node.until(lambda: bool(node.starts()))
        program, child = node.starts()[0]
        node.lock.away, node.lock.closed = "cut off", closed
        yield from node.until(lambda: node.lock.calls.count("acquire") > 3)
        until(lambda: not alive(program) and not alive(child))
        assert node.pid() == os.getpid()
        assert len(node.starts()) == 1
        node.lock.away, node.lock.closed = "", False
        yield from node.until(lambda: len(node.starts()) == 2)

    node.run(scenario(), lease=lease)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "singleton: beat leads here",
        "singleton: beat has lost its lease; ending the program: cut off",
        "singleton: beat: PostgreSQL does not answer: cut off",
        "singleton: beat leads here",
    ]
    # No clean stop but the last
    assert written(node.log).count("drained") == 1


def test_the_lock_is_given_back_only_when_the_program_has_ended(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(node.lock, "close", lambda: ended.append(not any(alive(program) for program, _ in node.starts())))
    node.run(node.until(lambda: bool(node.starts())), drain=60, stop_wait=0.1)
    assert ended
    assert all(ended)


def test_an_earlier_holder_has_its_time_while_the_lock_is_renewed(node: Node) -> None:
    node.lock.older = 1.2
    begin = time.monotonic()

    def scenario() -> Iterator[None]:
        yield from node.until(lambda: bool(node.starts()))
        assert time.monotonic() - begin >= 1.2
        assert node.lock.calls.count("renew") >= 2

    node.run(scenario(), lease=0.9)
    assert node.lock.calls.count("acquire") == 1


def test_who_was_frozen_kills_before_it_asks(node: Node, capsys: Any) -> None:
    def scenario() -> Iterator[None]:
        yield from node.until(lambda: bool(node.starts()))
        node.lock.other = True
        before = len(node.lock.calls)
        time.sleep(1.1)
        yield
        assert not alive(node.starts()[0][0])
        assert node.lock.calls[before] == "close"

    node.run(scenario())
    assert "singleton: beat has lost its lease; ending the program: it was not renewed in time" in capsys.readouterr().out


def test_a_stopped_program_has_its_time_to_end_and_its_lease(node: Node) -> None:
    node.run(node.until(lambda: bool(node.starts())), drain=1.5, lease=0.9)
    assert node.result == 0
    assert "drained" in written(node.log)
    assert node.lock.calls[-1] == "close"


def test_a_program_that_does_not_end_is_killed(node: Node) -> None:
    begin = time.monotonic()
    node.run(node.until(lambda: bool(node.starts())), drain=60, stop_wait=0.3)
    assert time.monotonic() - begin < 5
    assert node.result == 0
    assert "drained" not in written(node.log)


def test_who_stands_by_stops_at_once(node: Node) -> None:
    node.lock.other = True
    node.run(node.until(lambda: bool(node.lock.calls)))
    assert node.result == 0
    assert node.lock.calls == ["acquire", "close"]


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("os.kill(os.getpid(), 9)", 137)])
def test_a_program_that_ends_gives_the_lock_back(node: Node, end: str, code: int) -> None:
    def for_ever() -> Iterator[None]:
        while True:
            yield

    node.run(for_ever(), then=end)
    assert node.result == code
    assert not node.lock.held
    until(lambda: not alive(node.starts()[0][1]))


def test_signals_are_passed_on_to_a_program_that_runs(node: Node) -> None:
    def scenario() -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGHUP)
        yield
        node.lock.other = False
        yield from node.until(lambda: bool(node.starts()))
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getpid(), number)
            yield from node.until(lambda number=number: number.name in written(node.log))  # type: ignore[misc]

    node.lock.other = True
    node.run(scenario())
    assert written(node.log).splitlines()[1:] == ["SIGHUP", "SIGUSR1", "drained"]


def test_a_program_that_becomes_another_is_not_left_running(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(node.lock, "close", lambda: ended.append(not alive(node.starts()[0][0])))

    def for_ever() -> Iterator[None]:
        while True:
            yield

    with pytest.raises(SystemExit, match="cannot be fenced"):
        node.run(for_ever(), then="os.execvp('sleep', ['sleep', '60'])")
    # By then the program has ended
    assert ended
    assert all(ended)


def test_an_outage_is_told_of_once(node: Node, capsys: Any) -> None:
    def scenario() -> Iterator[None]:
        for number in range(3):
            node.lock.away = f"failure {number}"
            count = len(node.lock.calls)
            yield from node.until(lambda count=count: len(node.lock.calls) > count)  # type: ignore[misc]

    node.lock.away = "failure"
    node.run(scenario())
    assert capsys.readouterr().out.splitlines() == ["singleton: beat: PostgreSQL does not answer: failure"]


# The wrapper as a process of its own

WRAPPER = """
import importlib.util, pathlib, select, sys
spec = importlib.util.spec_from_file_location("singleton", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.FOLDER = pathlib.Path(sys.argv[2])
class Lock:
    def acquire(self): return 0.0
    def renew(self): pass
    def wait(self, seconds, wake): select.select([wake], [], [], max(0, seconds))
    def close(self): pass
sys.exit(module.Singleton("beat", Lock(), [sys.executable], sys.argv[3:], 5, 1.0).run())
"""


@pytest.fixture
def wrapper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A leader whose program counts."""
    program = [str(script(tmp_path, COUNT)), str(tmp_path / "count")]
    process = subprocess.Popen([sys.executable, "-c", WRAPPER, str(FILES / "singleton.py"), str(tmp_path), *program])
    until(lambda: bool(written(tmp_path / "count")))
    yield process
    process.kill()
    process.wait()


def test_the_end_of_the_wrapper_is_the_programs(wrapper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    program = int(written(tmp_path / "beat.pid"))
    wrapper.kill()
    wrapper.wait()
    until(lambda: not alive(program))


def test_when_all_was_frozen_the_program_starts_anew(wrapper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    program = int(written(tmp_path / "beat.pid"))
    for pid in (wrapper.pid, program):
        os.kill(pid, signal.SIGSTOP)
    until(lambda: stopped(wrapper.pid))
    frozen = time.monotonic()
    # The kernel does not wait for the thaw
    until(lambda: not alive(program))
    # The wrapper may have renewed its lease last, and the program have frozen before it heard of that
    until(lambda: time.monotonic() > frozen + 1.0)
    (tmp_path / "count").unlink()
    os.kill(wrapper.pid, signal.SIGCONT)
    until(lambda: bool(written(tmp_path / "count")))
    assert int(written(tmp_path / "beat.pid")) not in (program, wrapper.pid)


# Its arguments


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("#!/opt/venv/bin/python", ["/opt/venv/bin/python"]),
        ("#! /usr/bin/python3 -s", ["/usr/bin/python3", "-s"]),
        ("#!/usr/bin/env python3.13", ["python3.13"]),
        ("#!/usr/bin/env -S python3 -u", ["python3", "-u"]),
    ],
)
def test_a_script_tells_its_interpreter(singleton: Any, tmp_path: Path, first: str, expected: list[str]) -> None:
    path = script(tmp_path, "")
    path.write_text(f"{first}\n")
    assert singleton.interpreter(str(path)) == expected


def test_an_interpreter_is_its_own(singleton: Any) -> None:
    assert singleton.interpreter(sys.executable) == [sys.executable]


@pytest.mark.parametrize("program", ["sleep", "#!/bin/sh", "no line", "no-such-program"])
def test_what_is_no_python_program_is_refused(tmp_path: Path, program: str) -> None:
    path = script(tmp_path, "")
    path.write_text(f"{program}\n")
    word = program if program in ("sleep", "no-such-program") else str(path)
    command = [sys.executable, str(FILES / "singleton.py"), "--name=x", "--service-file=/none", "--stop-wait=1", "--", word, "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 1
    assert done.stderr.startswith("singleton: ")
    assert word in done.stderr


# PostgreSQL's lock


@pytest.fixture
def psycopg(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """A stand-in for psycopg, which is in the images alone."""
    stand_in = MagicMock()
    stand_in.Error = type("Error", (Exception,), {})
    stand_in.OperationalError = type("OperationalError", (stand_in.Error,), {})
    monkeypatch.setitem(sys.modules, "psycopg", stand_in)
    monkeypatch.setenv("PGSERVICEFILE", "before")
    return stand_in


def test_every_host_asks_for_the_same_lock(singleton: Any, psycopg: MagicMock) -> None:
    # Other numbers would let two versions of this file lead at once
    assert singleton.PostgresLock("beat", "file").key == "-482219685, -101796293"
    assert singleton.PostgresLock("other", "file").key != "-482219685, -101796293"


def test_the_server_ends_a_silent_session_after_the_lease(singleton: Any, psycopg: MagicMock) -> None:
    lock = singleton.PostgresLock("n" * 80, "/run/file")
    lock.connect()
    assert psycopg.connect.call_args.args == ("service=lock",)
    options = psycopg.connect.call_args.kwargs
    assert "idle_session_timeout=7000 " in options["options"]
    assert options["connect_timeout"] == 3
    assert len(options["application_name"]) == 63
    assert os.environ["PGSERVICEFILE"] == "/run/file"
    # Which is not the program's
    assert singleton.ENVIRONMENT.get("PGSERVICEFILE") != "/run/file"


@pytest.mark.parametrize(("up", "wait"), [("2.5", 3.5), ("100", 0.0), ("-50", 6.0)])
def test_a_server_that_has_just_started_has_forgotten_its_locks(singleton: Any, psycopg: MagicMock, up: str, wait: float) -> None:
    lock = singleton.PostgresLock("beat", "file")
    lock.ask = lambda query: "t" if "pg_try_advisory_lock" in query else up
    assert lock.acquire() == wait


def test_a_server_that_does_not_answer_is_not_waited_for(singleton: Any, psycopg: MagicMock) -> None:
    lock = singleton.PostgresLock("beat", "file", lease=0.2)
    lock.connect()
    libpq = lock.connection.pgconn
    libpq.socket, end = os.pipe()
    answer = threading.Timer(2, os.write, (end, b"late"))
    answer.start()
    libpq.is_busy.side_effect = answer.is_alive
    libpq.get_result.return_value = None
    with pytest.raises(singleton.Lost, match="no answer"):
        lock.renew()
    answer.cancel()
    for each in (libpq.socket, end):
        os.close(each)


def test_what_psycopg_says_becomes_one_line(singleton: Any, psycopg: MagicMock) -> None:
    psycopg.connect.side_effect = psycopg.OperationalError("connection failed:\n\tis it running?")
    with pytest.raises(singleton.Lost, match=r"^connection failed: is it running\?$"):
        singleton.PostgresLock("beat", "file").acquire()
