"""What the collection brings into containers: the probe, the launcher, the HTTP check, and how worker and beat start and are checked."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import importlib.util
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest.mock import MagicMock

import pytest
import yaml

from ansible_collections.fba.stack.plugins.filter.container import TLS
from ansible_collections.fba.stack.plugins.plugin_utils.pki import issue, make_ca

from conftest import ROOT, Pem, tls_context

FILES = ROOT / "roles" / "container" / "files"
NAMESPACES = ["unshare", "--pid", "--fork", "--mount-proc", "--mount"]


def load(path: Path) -> ModuleType:
    """Import a script that is no part of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The probe


def can_unshare() -> bool:
    """Whether namespaces of one's own are to be had."""
    return bool(shutil.which("unshare")) and subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


class Probe:
    """Runs the probe as a container would: with a /tmp and a process tree of its own, so that what it kills is only there."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __call__(
        self, test: str, liveness: list[str] | None = None, failures: int = 3, start_period: int = 0, limit: str = "5"
    ) -> tuple[int, bool]:
        """Return the probe's exit code, and whether a process beside it is still alive afterwards."""
        arguments = [limit, str(failures), str(start_period), *test.split(), "--liveness", *(liveness or [])]
        script = """
            state=$1; exec 9< "$2"; shift 2
            mount --bind "$state" /tmp
            sleep 60 & beside=$!
            sh /proc/self/fd/9 "$@"
            code=$?
            # Whoever has been killed already does not end by this signal any more
            kill -TERM "$beside" 2> /dev/null
            wait "$beside"
            echo "result $code $?"
        """
        done = subprocess.run(
            [*NAMESPACES, "sh", "-c", script, "-", str(self.state), str(FILES / "probe.sh"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        results = [line.split() for line in done.stdout.splitlines() if line.startswith("result")]
        assert results, done.stdout + done.stderr
        return int(results[0][1]), int(results[0][2]) == 128 + signal.SIGTERM

    def started_ago(self, seconds: int) -> None:
        """Let the container's first probe have been so long ago."""
        (self.state / ".fba-probe.started").write_text(f"{int(time.time()) - seconds}\n")


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    """A probe that has not run yet."""
    if not can_unshare():
        pytest.skip("needs root or user namespaces")
    (tmp_path / "tmp").mkdir()
    return Probe(tmp_path / "tmp")


LEFT_ALONE, HEALTHY, ENDED = (1, True), (0, True), (1, False)


def test_probe_says_what_the_test_says(probe: Probe) -> None:
    assert probe("true") == HEALTHY
    assert probe("false") == LEFT_ALONE


def test_probe_ends_the_container_after_failures_in_a_row(probe: Probe) -> None:
    probe("true")
    assert [probe("false", failures=3) for _ in range(3)] == [LEFT_ALONE, LEFT_ALONE, ENDED]


def test_a_container_that_is_stopping_may_finish_what_it_does(probe: Probe) -> None:
    probe("true")
    (probe.state / ".fba-stopping").touch()
    assert [probe("false", failures=1) for _ in range(3)] == [LEFT_ALONE] * 3
    (probe.state / ".fba-stopping").unlink()
    assert probe("false", failures=1) == ENDED


def test_one_success_in_between_starts_the_count_anew(probe: Probe) -> None:
    probe("true")
    probe("false", failures=2)
    probe("true")
    assert probe("false", failures=2) == LEFT_ALONE
    assert probe("false", failures=2) == ENDED


def test_a_container_that_was_never_healthy_has_its_start_period(probe: Probe) -> None:
    assert [probe("false", failures=1, start_period=60) for _ in range(2)] == [LEFT_ALONE, LEFT_ALONE]
    probe.started_ago(61)
    assert probe("false", failures=1, start_period=60) == ENDED


def test_a_container_that_was_healthy_has_none(probe: Probe) -> None:
    probe("true")
    assert probe("false", failures=1, start_period=60) == ENDED


def test_unhealthy_but_alive_is_left_alone(probe: Probe) -> None:
    """Such as a server whose database is away: restarting it helps nobody."""
    probe("true")
    assert [probe("false", ["true"], failures=1) for _ in range(3)] == [LEFT_ALONE] * 3
    assert probe("false", ["false"], failures=1) == ENDED


def test_being_alive_in_between_starts_the_count_anew(probe: Probe) -> None:
    probe("true")
    probe("false", ["false"], failures=2)
    probe("false", ["true"], failures=2)
    assert probe("false", ["false"], failures=2) == LEFT_ALONE


def test_a_test_that_hangs_has_failed(probe: Probe) -> None:
    probe("true")
    assert probe("sleep 60", failures=1, limit="0.2") == ENDED


def test_no_shell_reads_the_commands_again(probe: Probe) -> None:
    words = ["sh", "-c", 'test "$1" = "a  b" && test "$2" = "\\$HOME;*" && test $# = 2', "-", "a  b", "$HOME;*"]
    assert probe("false", words, failures=1) == LEFT_ALONE
    assert probe("false", [*words[:-1], "other"], failures=1) == ENDED


# The launcher


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def launch(*arguments: str) -> subprocess.Popen[str]:
    """Start the launcher."""
    command = [sys.executable, str(FILES / "launch.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_launcher_waits_for_a_port_that_opens_later(free_port: int) -> None:
    program = [sys.executable, "-c", "import os, sys; print(os.getpid(), sys.argv[1:])", "--", "--x"]
    with launch(f"--wait=127.0.0.1:{free_port}", "--timeout=20", "--", *program) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.7)
        with socket.create_server(("127.0.0.1", free_port)):
            output, errors = process.communicate(timeout=20)
    # It becomes the program, so that signals reach it, and hands its words over as they are
    assert output == f"{process.pid} ['--', '--x']\n", errors
    assert process.returncode == 0


def test_launcher_gives_up_with_the_address_that_does_not_answer(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_address, closed = f"127.0.0.1:{server.getsockname()[1]}", f"127.0.0.1:{free_port}"
        with launch(f"--wait={open_address}", f"--wait={closed}", "--timeout=0.1", "--", "echo", "started") as process:
            output, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert output == ""
    assert closed in errors
    assert open_address not in errors


def test_launcher_takes_a_name_that_does_not_exist_for_no_answer() -> None:
    assert load(FILES / "launch.py").answers("no-such-host.invalid:5432") is False


# The watcher


class Watched:
    """A program under the watcher, which writes down when it starts with which code, and when it has ended."""

    PROGRAM = """
import pathlib, signal, sys, time
log = pathlib.Path("log").open("a", buffering=1)
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(DRAIN), log.write("drained\\n"), sys.exit()))
log.write(f"start {pathlib.Path('code/a.py').read_text()} {sys.argv[1:]}\\n")
while True:
    time.sleep(0.05)
"""

    def __init__(self, folder: Path, drain: float, stop_wait: float) -> None:
        self.folder = folder
        self.code = folder / "code"
        self.code.mkdir()
        (self.code / "a.py").write_text("1")
        program = [sys.executable, "-c", self.PROGRAM.replace("DRAIN", str(drain)), "--", "--x"]
        command = [sys.executable, str(FILES / "watch.py"), f"--watch={self.code}", f"--stop-wait={stop_wait}", "--", *program]
        self.process = subprocess.Popen(command, cwd=folder, start_new_session=True)

    def log(self) -> list[str]:
        """What the program has written."""
        file = self.folder / "log"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """A function that starts a program under the watcher; what is left of it at the end is killed."""
    made: list[Watched] = []

    def start(drain: float = 0.0, stop_wait: float = 20.0) -> Watched:
        made.append(Watched(tmp_path, drain, stop_wait))
        until(lambda: len(made[0].log()) == 1)
        # It watches from a moment later on, which the kernel knows
        descriptors = Path(f"/proc/{made[0].process.pid}/fdinfo")
        until(lambda: any("inotify wd:" in each.read_text() for each in descriptors.iterdir()))
        return made[0]

    yield start
    for each in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.wait()


FIRST, SECOND = "start 1 ['--', '--x']", "start 2 ['--', '--x']"


def test_watcher_starts_the_program_anew_when_python_code_changes(watched: Any) -> None:
    program = watched()
    (program.code / "page.html").write_text("x")
    (program.code / "__pycache__").mkdir()
    (program.code / "__pycache__" / "b.py").write_text("x")
    time.sleep(0.5)
    assert program.log() == [FIRST]
    (program.code / "a.py").write_text("2")
    until(lambda: program.log() == [FIRST, "drained", SECOND])


def test_a_watched_program_that_is_stopped_has_its_time_to_end(watched: Any) -> None:
    program = watched(drain=1)
    program.process.terminate()
    assert program.process.wait(20) == 0
    assert program.log() == [FIRST, "drained"]


def test_a_watched_program_that_does_not_end_is_killed(watched: Any) -> None:
    program = watched(drain=60, stop_wait=0.5)
    (program.code / "a.py").write_text("2")
    until(lambda: program.log() == [FIRST, SECOND])


# The HTTP check


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path asks for."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(int(self.path.strip("/")))
        self.send_header("Location", "/200")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """A web server."""
    Answers.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def http_check(url: str, expected: str) -> subprocess.CompletedProcess[str]:
    """Run the check."""
    return subprocess.run([sys.executable, str(FILES / "http_check.py"), url, expected], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("status", "expected", "good"),
    [(200, "200", True), (503, "200", False), (503, "503", True), (503, "any", True), (302, "200", False), (302, "302", True)],
)
def test_http_check(url: str, status: int, expected: str, good: bool) -> None:
    done = http_check(f"{url}/{status}", expected)
    assert (done.returncode == 0) is good, done.stderr
    if not good:
        assert f"/{status} answers {status}, not {expected}" in done.stderr
    # A redirect is an answer, not a place to go to
    assert Answers.seen == [f"/{status}"]


def test_http_check_fails_where_nothing_answers(free_port: int) -> None:
    assert http_check(f"http://127.0.0.1:{free_port}/", "any").returncode != 0


# The same over TLS: the container shows its certificate, and wants to see one of the same authority


TODAY = datetime.datetime.now(datetime.UTC)
AUTHORITY, STRANGER = (make_ca("an authority", 2, TODAY) for _number in range(2))
OWN: dict[str, Any] = {"names": ["fba_server", "localhost"], "addresses": []}


@pytest.fixture
def tls_url(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A function that starts a web server which wants to see a certificate of the authority, and returns its address."""
    started: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    def start(authority: Pem = AUTHORITY, wanted: dict[str, Any] = OWN) -> str:
        Answers.seen.clear()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        pem = issue(authority, "one/server", wanted, 2, TODAY)
        speaks = tls_context(tmp_path, ssl.PROTOCOL_TLS_SERVER, pem, AUTHORITY["certificate"])
        server.socket = speaks.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return f"https://localhost:{server.server_address[1]}"

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def status_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function that asks as the check does, in a container that has this certificate and trusts this authority."""

    def ask(url: str, pem: Pem | None = None, trusted: Pem = AUTHORITY) -> int:
        module: Any = load(FILES / "http_check.py")
        pem = pem or issue(AUTHORITY, "one/server", OWN, 2, TODAY)
        # The names of the files are the ones that the container has
        common = yaml.safe_load((ROOT / "roles/common/defaults/main.yml").read_text(encoding="utf-8"))["__fba_tls"]
        for key, text in (("ca", trusted["certificate"]), ("certificate", pem["certificate"]), ("private_key", pem["private_key"])):
            assert str(Path(common[key]).parent) == TLS
            (tmp_path / Path(common[key]).name).write_text(text, encoding="ascii")
        assert module.TLS == TLS
        monkeypatch.setattr(module, "TLS", str(tmp_path))
        return int(module.status_of(url))

    return ask


@pytest.mark.parametrize("status", [200, 302, 503])
def test_http_check_shows_the_containers_certificate(tls_url: Callable[..., str], status_of: Callable[..., int], status: int) -> None:
    assert status_of(f"{tls_url()}/{status}") == status
    assert Answers.seen == [f"/{status}"]


def test_the_server_of_these_tests_wants_a_certificate(tls_url: Callable[..., str]) -> None:
    """Else the check could show none and nobody would see."""
    trusts = ssl.create_default_context(cadata=AUTHORITY["certificate"])
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{tls_url()}/200", context=trusts, timeout=10)
    assert Answers.seen == []


@pytest.mark.parametrize(
    ("server", "given"),
    [
        ({"authority": STRANGER}, {}),
        # Somebody of the stack's, but not this service
        ({"wanted": {"names": ["fba_redis"], "addresses": []}}, {}),
        ({"wanted": {"names": [], "addresses": []}}, {}),
        ({}, {"trusted": STRANGER}),
        ({}, {"pem": issue(STRANGER, "one/server", OWN, 2, TODAY)}),
    ],
    ids=["another authority's server", "another name", "a mere client", "another authority is trusted", "a certificate of another one"],
)
def test_http_check_takes_nobody_else_for_the_server(
    tls_url: Callable[..., str], status_of: Callable[..., int], server: dict[str, Any], given: dict[str, Any]
) -> None:
    with pytest.raises(OSError):
        status_of(f"{tls_url(**server)}/200", **given)
    assert Answers.seen == []


# Beat


RUN = ROOT / "roles/beat/files/run.py"
# Prints what a script opens for writing, before it runs it
OBSERVED = """
import runpy, sys
sys.addaudithook(lambda event, given: event == "open" and (given[2] or 0) & 3 and print("writes", given[0], flush=True))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Answers the second ping
CELERY = """
class Control:
    asked = 0
    def ping(self, timeout):
        self.asked += 1
        return [{"io@host": "pong"}] if self.asked > ANSWERS else []

def find_app(name):
    assert name == "fba_app.celery"
    return type("App", (), {"control": Control()})
"""


def run_beat(folder: Path, answers: int | float, patience: str) -> subprocess.CompletedProcess[str]:
    """Run what beat waits by, with a stand-in for Celery whose workers do not answer so many pings. The program tells who it is."""
    (folder / "celery" / "app").mkdir(parents=True)
    for name in ("celery/__init__.py", "celery/app/__init__.py"):
        (folder / name).touch()
    (folder / "celery/app/utils.py").write_text(f"ANSWERS = float('{answers}')\n{CELERY}", encoding="utf-8")
    program = [sys.executable, "-c", "import os, sys; print(os.getpid() == os.getpgid(0), sys.argv[1:])", "--", "--pidfile="]
    return subprocess.run(
        [sys.executable, "-c", OBSERVED, str(RUN), "fba_app.celery", patience, *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_beat_becomes_the_program_once_a_worker_answers(tmp_path: Path) -> None:
    """And writes no file: which process has to go on waking up, the election says."""
    done = run_beat(tmp_path, 2, "60")
    waited = ["beat: waiting for a worker"] * 2
    assert done.stdout.splitlines() == [*waited, "True ['--', '--pidfile=']"], done.stderr
    assert done.returncode == 0


def test_beat_gives_up_on_workers_in_time(tmp_path: Path) -> None:
    done = run_beat(tmp_path, float("inf"), "0.05")
    assert done.returncode != 0
    assert "beat: no worker has answered in 0.05 s" in done.stderr
    assert set(done.stdout.splitlines()) <= {"beat: waiting for a worker"}


def test_beats_check_looks_at_the_process_that_the_election_names() -> None:
    """The standby's is that of the election itself, the leader's is beat's."""
    program = yaml.safe_load((ROOT / "roles/beat/vars/main.yml").read_text(encoding="utf-8"))["__beat_program"]
    assert program["singleton"] is True
    election, check = load(FILES / "singleton.py"), load(ROOT / "roles/beat/files/check.py")
    assert election.FOLDER / f"{program['name']}.pid" == check.PID_FILE


@pytest.fixture
def beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """A function that checks a process as if it were beat."""
    module = load(ROOT / "roles/beat/files/check.py")
    monkeypatch.setattr(module, "PID_FILE", tmp_path / "beat.pid")
    monkeypatch.setattr(module, "STATE_FILE", tmp_path / "beat.check")

    def check(pid: int, patience: str) -> None:
        (tmp_path / "beat.pid").write_text(str(pid))
        monkeypatch.setattr(sys, "argv", ["check.py", patience])
        module.main()

    check.sleeps = module.sleeps  # type: ignore[attr-defined]
    check.state = tmp_path / "beat.check"  # type: ignore[attr-defined]
    return check


@pytest.fixture
def ticking() -> Iterator[subprocess.Popen[bytes]]:
    """A process that wakes up often, as a scheduler does."""
    process = subprocess.Popen([sys.executable, "-uc", "import time\nprint()\nwhile True: time.sleep(0.01)"], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_beat_that_goes_round_its_loop_is_well(beat: Any, ticking: subprocess.Popen[bytes]) -> None:
    for _ in range(3):
        before = beat.sleeps(ticking.pid)
        until(lambda before=before: beat.sleeps(ticking.pid) > before)  # type: ignore[misc]
        beat(ticking.pid, "0")


def test_beat_that_does_not_wake_up_is_reported_after_its_patience(beat: Any, ticking: subprocess.Popen[bytes]) -> None:
    os.kill(ticking.pid, signal.SIGSTOP)
    until(lambda: "T (stopped)" in Path(f"/proc/{ticking.pid}/status").read_text())
    beat(ticking.pid, "0")
    beat(ticking.pid, "60")
    with pytest.raises(SystemExit, match="beat has not woken up for"):
        beat(ticking.pid, "0")
    os.kill(ticking.pid, signal.SIGCONT)
    count = json.loads(beat.state.read_text())["count"]
    until(lambda: beat.sleeps(ticking.pid) > count)
    beat(ticking.pid, "0")


def test_another_process_of_beat_is_judged_anew(beat: Any, ticking: subprocess.Popen[bytes]) -> None:
    beat.state.write_text(json.dumps({"pid": ticking.pid + 1, "count": beat.sleeps(ticking.pid), "since": 0}))
    beat(ticking.pid, "0")


def test_beat_that_is_not_there_is_reported(beat: Any) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    with pytest.raises(SystemExit, match="beat is not running"):
        beat(done.pid, "60")


# The worker


def test_worker_has_another_node_name_each_time_and_keeps_it_for_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(ROOT / "roles/worker/files/run.py")
    monkeypatch.setattr(module, "Path", lambda path: tmp_path / path.removeprefix("/tmp/"))
    monkeypatch.setattr(sys, "argv", ["run.py", "io", "celery", "-A", "app", "worker"])
    monkeypatch.setenv("PYTHONPATH", "/srv/app")
    started: list[list[str]] = []
    paths: list[str] = []

    def become(program: str, words: list[str]) -> None:
        started.append([program, *words])
        paths.append(os.environ["PYTHONPATH"])

    monkeypatch.setattr(module.os, "execvp", become)
    module.main()
    monkeypatch.delenv("PYTHONPATH")
    module.main()
    first, second = (words[words.index("-n") + 1] for words in started)
    assert first != second
    assert all(name.startswith("io-") and name.endswith(f"@{socket.gethostname()}") for name in (first, second))
    always = "tls_errors,broker_settings,buffered_events,less_memory"
    assert started[0] == ["celery", "celery", "-A", "app", "worker", "-n", first, "--include", always]
    assert (tmp_path / "io.node").read_text() == second
    assert paths == ["/opt/include:/srv/app", "/opt/include"]
    monkeypatch.setattr(sys, "argv", ["run.py", "io", "--quiet-tasks", "celery", "worker"])
    module.main()
    assert started[2][1:3] == ["celery", "worker"]
    assert started[2][-2:] == ["--include", f"{always},quiet_tasks"]
    monkeypatch.setattr(sys, "argv", ["run.py", "io", "celery", "worker", "-P", "gevent"])
    module.main()
    assert started[3][-1] == f"{always},batched_broker,lean_greenlets"


def test_a_dead_tls_connection_leaves_no_error_for_the_others() -> None:
    # In a process of its own, as it changes Python's sockets
    script = """
import _ssl, ctypes, errno, ssl, sys
sys.path.insert(0, sys.argv[1])
import tls_errors

openssl = ctypes.PyDLL(getattr(_ssl, "__file__", None))

@tls_errors.clearing
def read(count, *, error):
    openssl.ERR_new()
    openssl.ERR_set_error(2, errno.EPIPE, None)
    assert openssl.ERR_peek_error() != 0
    if error:
        raise error
    return count

try:
    read(1, error=BrokenPipeError(errno.EPIPE, "Broken pipe"))
except BrokenPipeError as error:
    assert error.errno == errno.EPIPE
else:
    raise AssertionError("the error was swallowed")
assert openssl.ERR_peek_error() == 0
assert read(1, error=None) == 1
assert all(hasattr(getattr(ssl.SSLSocket, name), "__wrapped__") for name in ("do_handshake", "read", "write", "send", "unwrap"))
"""
    command = [sys.executable, "-c", script, str(ROOT / "roles/worker/files/include")]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker's check, with a stand-in for Celery's library, which is in the application's image alone (tests/worker has it)."""
    kombu = MagicMock()
    monkeypatch.setitem(sys.modules, "kombu", kombu)
    monkeypatch.setitem(sys.modules, "kombu.pidbox", kombu.pidbox)
    module: Any = load(ROOT / "roles/worker/files/check.py")
    monkeypatch.setattr(module, "Path", lambda _path: tmp_path)
    module.call = module.Mailbox.return_value.return_value.call
    module.nodes = tmp_path
    (tmp_path / "broker.pickle").write_bytes(pickle.dumps({"connection": {}, "mailbox": {}}))
    return module


def check_worker(worker: Any, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
    """Run the check on workers that answer so."""
    worker.call.return_value = [{node: answer} for node, answer in answers.items()]
    monkeypatch.setattr(sys, "argv", ["check.py"])
    worker.main()


def test_a_container_of_version_one_is_understood(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (worker.nodes / "io.node").write_text("io-1@host")
    worker.call.return_value = [{"io-1@host": [{"name": "io"}]}]
    monkeypatch.setattr(sys, "argv", ["check.py", "-A", "app"])
    worker.main()
    worker.call.return_value = []
    with pytest.raises(SystemExit, match="no answer from io-1@host"):
        worker.main()


def test_workers_that_consume_are_well(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (worker.nodes / "io.node").write_text("io-1@host")
    (worker.nodes / "cpu.node").write_text("cpu-1@host")
    check_worker(worker, monkeypatch, {"io-1@host": [{"name": "io"}], "cpu-1@host": [{"name": "cpu"}]})
    # Only this container's are asked
    assert worker.call.call_args.args == (["cpu-1@host", "io-1@host"], "active_queues")


@pytest.mark.parametrize("answer", [{}, {"io-1@host": []}, {"io-1@host": {"error": "KeyError()"}}, {"io-2@host": [{"name": "io"}]}])
def test_a_worker_that_is_silent_or_consumes_nothing_is_named(worker: Any, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    (worker.nodes / "io.node").write_text("io-1@host")
    (worker.nodes / "cpu.node").write_text("cpu-1@host")
    with pytest.raises(SystemExit, match=r"^no answer from io-1@host$"):
        check_worker(worker, monkeypatch, answer | {"cpu-1@host": [{"name": "cpu"}]})
    with pytest.raises(SystemExit, match=r"^no answer from cpu-1@host, io-1@host$"):
        check_worker(worker, monkeypatch, answer)


def test_while_a_pool_begins_nobody_is_waited_for_long(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that comes before the pool listens is never answered."""
    answers = {"io-1@host": [{"name": "io"}]}
    (worker.nodes / "io.node").write_text("io-1@host")
    for patience in (worker.SHORT_PATIENCE, worker.PATIENCE):
        check_worker(worker, monkeypatch, answers)
        assert worker.call.call_args.kwargs == {"timeout": patience}


def test_a_worker_that_has_not_started_is_not_well(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no pool has started yet"):
        check_worker(worker, monkeypatch, {})
    (worker.nodes / "io.node").write_text("io-1@host")
    (worker.nodes / "broker.pickle").unlink()
    with pytest.raises(SystemExit, match="no pool has written down yet how its broker is reached"):
        check_worker(worker, monkeypatch, {"io-1@host": [{"name": "io"}]})
    worker.call.assert_not_called()


def ask_whether_it_can_wait(worker: Any, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Run what is asked when the check has failed."""
    monkeypatch.setattr(sys, "argv", ["check.py", "--away", f"127.0.0.1:{port}"])
    worker.main()
    # Only the pools can say how they are
    worker.call.assert_not_called()


def test_a_broker_that_is_away_is_not_the_workers_fault(worker: Any, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    ask_whether_it_can_wait(worker, monkeypatch, free_port)
    with socket.create_server(("127.0.0.1", 0)) as broker, pytest.raises(SystemExit, match="takes connections"):
        ask_whether_it_can_wait(worker, monkeypatch, broker.getsockname()[1])


def test_a_pool_that_was_just_started_has_time_to_begin(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, age in (("io", 5), ("cpu", 600)):
        (worker.nodes / f"{name}.node").write_text(f"{name}-1@host")
        os.utime(worker.nodes / f"{name}.node", times=(time.time() - age,) * 2)
    with socket.create_server(("127.0.0.1", 0)) as broker:
        ask_whether_it_can_wait(worker, monkeypatch, broker.getsockname()[1])
        for age in (worker.START + 1, -3600):
            os.utime(worker.nodes / "io.node", times=(time.time() - age,) * 2)
            with pytest.raises(SystemExit, match="every pool has had 30 s to begin"):
                ask_whether_it_can_wait(worker, monkeypatch, broker.getsockname()[1])


def test_a_pool_that_has_answered_has_begun(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not given the time of a start if it falls silent soon after; a new start is another matter."""
    for name in ("io", "io-2"):
        (worker.nodes / f"{name}.node").write_text(f"{name}-1@host")
    with pytest.raises(SystemExit, match=r"no answer from io-2-1@host$"):
        check_worker(worker, monkeypatch, {"io-1@host": [{"name": "io"}]})
    worker.call.reset_mock()
    with socket.create_server(("127.0.0.1", 0)) as broker:
        port = broker.getsockname()[1]
        ask_whether_it_can_wait(worker, monkeypatch, port)
        (worker.nodes / "io-2.node").unlink()
        with pytest.raises(SystemExit, match="has had 30 s to begin"):
            ask_whether_it_can_wait(worker, monkeypatch, port)
        (worker.nodes / "io.node").write_text("io-2@host")
        ask_whether_it_can_wait(worker, monkeypatch, port)


# supervisord

NEVER_LOOKS = """
import runpy, sys
from supervisor import poller
for each in (poller.PollPoller, poller.SelectPoller):
    each.poll = lambda self, timeout, poll=each.poll: poll(self, 3600)
sys.argv = [sys.argv[1], "-c", sys.argv[2]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script in a process whose supervisord waits until something can be read, and never looks because a second has passed."""

PRINTS_ITS_ENDS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("begun", flush=True)
# Not for ever: where a test fails, nobody ends it
if signal.sigtimedwait([signal.SIGTERM], 60):
    print("ended", flush=True)
"""


@pytest.fixture
def supervisord(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A supervisord that looks at signals and nothing else, and the file that its program writes to."""
    program, log, config = tmp_path / "program.py", tmp_path / "program.log", tmp_path / "supervisord.conf"
    program.write_text(PRINTS_ITS_ENDS)
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={tmp_path}/supervisord.log\npidfile={tmp_path}/pid\n"
        # A file of its own, so that what it prints is nothing that supervisord has to read
        f"[program:program]\ncommand=sh -c 'exec {sys.executable} {program} > {log}'\nstartsecs=0\nautorestart=true\n"
    )
    with subprocess.Popen([sys.executable, "-c", NEVER_LOOKS, FILES / "supervisord.py", config], stdout=subprocess.DEVNULL) as process:
        yield process, log
        process.kill()


def until_it_says(log: Path, text: str) -> None:
    """Wait until a file has a text."""
    deadline = time.monotonic() + 30
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"{log} has no {text!r}"
        time.sleep(0.02)


def test_supervisord_starts_and_ends_its_programs_without_waiting_for_a_second(supervisord: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, log = supervisord
    until_it_says(log, "begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert log.read_text() == "begun\nended\n"


def test_supervisord_starts_a_program_again_that_has_ended(supervisord: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, log = supervisord
    until_it_says(log, "begun")
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    log.unlink()
    os.kill(int(child), signal.SIGKILL)
    until_it_says(log, "begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_supervisord_rests_when_it_has_seen_to_a_signal(supervisord: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, log = supervisord
    until_it_says(log, "begun")
    process.send_signal(signal.SIGCHLD)

    def turns() -> list[str]:
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return [line for line in status if "ctxt_switches" in line] + Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]

    deadline = time.monotonic() + 30
    seen: list[list[str]] = []
    # Nothing wakes it any more: between two looks it has done nothing
    while len(seen) < 2 or seen[-1] != seen[-2]:
        assert time.monotonic() < deadline, f"it does not rest: {seen[-2:]}"
        time.sleep(0.3)
        seen.append(turns())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


# The listener of supervisord


@pytest.fixture
def supervise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The listener, and supervisor's own half of the protocol, which ends after the events given to it."""
    module: Any = load(FILES / "supervise.py")
    monkeypatch.setattr(module, "STOPPING", tmp_path / "stopping")
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "kill", lambda pid, number: killed.append((pid, number)))

    def run(events: list[tuple[str, str]]) -> list[tuple[int, int]]:
        head = "ver:3.0 server:supervisor serial:21 pool:supervise poolserial:10"
        asked = "".join(f"{head} eventname:{name} len:{len(payload)}\n{payload}" for name, payload in events)
        answers = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(asked))
        monkeypatch.setattr(sys, "stdout", answers)
        module.main()
        # Each is acknowledged, or the next would never come. Anything else there would break the protocol
        assert answers.getvalue() == "READY\nRESULT 2\nOK" * len(events) + "READY\n"
        return killed

    return run


def test_output_of_programs_becomes_the_containers(supervise: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first = ("PROCESS_LOG_STDOUT", "processname:io pid:7\nline one\n")
    events = [first, ("PROCESS_LOG_STDOUT", "processname:io pid:7\nline: two\n")]
    assert supervise(events) == []
    assert capsys.readouterr().err == "line one\nline: two\n"


def test_a_program_that_is_given_up_on_ends_supervisord(supervise: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert supervise([("PROCESS_STATE_FATAL", "processname:worker-io groupname:worker-io from_state:BACKOFF")]) == [
        (os.getppid(), signal.SIGTERM)
    ]
    assert "worker-io does not stay up" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "given_up"), [(10.0, True), (70.0, True), (80.0, False)])
def test_a_program_that_ends_again_and_again_is_given_up_on(
    supervise: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, given_up: bool
) -> None:
    """Each end comes later than supervisor's `startsecs`, as of an application that crashes when it has imported for a while."""
    clock = itertools.count(step=seconds)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    end = ("PROCESS_STATE_EXITED", "processname:server groupname:server from_state:RUNNING expected:0 pid:9")
    assert bool(supervise([end] * 5)) is given_up


def test_who_is_asked_to_end_is_left_to_it_and_who_is_given_up_on_is_not(supervise: Any, tmp_path: Path) -> None:
    stopping = ("SUPERVISOR_STATE_CHANGE_STOPPING", "")
    supervise([("PROCESS_STATE_FATAL", "processname:io groupname:io from_state:BACKOFF"), stopping])
    assert not (tmp_path / "stopping").exists()
    supervise([stopping])
    assert (tmp_path / "stopping").exists()


def test_the_ends_of_several_programs_are_not_added_up(supervise: Any) -> None:
    events = [("PROCESS_STATE_EXITED", f"processname:{name} groupname:{name} from_state:RUNNING expected:0 pid:9") for name in "ab" * 4]
    assert supervise(events) == []
