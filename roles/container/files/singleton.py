"""Run a program on one host at a time: singleton.py --name=NAME --service-file=FILE --stop-wait=SECONDS -- PROGRAM…

Of all hosts that call this for the same name, the one that holds an advisory lock in PostgreSQL runs the program; the others stand by. The
lock belongs to a session and ends with it. Every renewal that is answered is a lease: the program may run until LEASE seconds after it was
sent. The server ends a session that has been silent for a second more, so whoever gets the lock next is never too early.

- The holder freezes: the server ends its session. At the end of the lease the kernel kills the program, by a timer in the program's own
  process (leased.py), so after a thaw it does not run on. This process looks at the clock before anything else, and stands by.
- The holder is cut off: its renewals are not answered in time, and it kills the program before the lease ends.
- PostgreSQL restarts: every session ends, which the holder sees at once. One that is cut off as well does not see it, and the server has
  forgotten its lock; so nobody begins until the server has been up for the length of a lease.
- This process is killed: the kernel kills the program with it.

It is the program's process that is fenced. Its children, as its process group, are killed with it, but by this process. A program that is
not Python, or that becomes another one by exec, cannot be fenced and is not run.
"""

import argparse
import contextlib
import hashlib
import math
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

LEASE = 6.0
PAUSE = 0.5
FOLDER = Path("/tmp")
LEASED = Path(__file__).with_name("leased.py")
# The program's; this process adds to its own
ENVIRONMENT = dict(os.environ)


class Lost(Exception):
    """The session with the lock, or the right to run the program, is gone."""


def now() -> float:
    """Return the time by a clock that nobody sets. Unlike CLOCK_MONOTONIC it goes on while this host is suspended: the server goes on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lock(Protocol):
    """What the election asks of a lock. Everything raises Lost where the lock cannot be asked or has gone."""

    def acquire(self) -> float | None:
        """Take the lock, and return for how many seconds an earlier holder may still be running. Return None if another has the lock."""

    def renew(self) -> None:
        """Keep the lock."""

    def wait(self, seconds: float, wake: int) -> None:
        """Wait, at most until the descriptor `wake` can be read."""

    def close(self) -> None:
        """Give the lock back, if it is held."""


@contextlib.contextmanager
def lost_on_error() -> Iterator[None]:
    """Turn what psycopg raises into Lost, in one line."""
    import psycopg  # type: ignore[import-not-found,unused-ignore]

    try:
        yield
    except psycopg.Error as error:
        raise Lost(" ".join(str(error).split())) from None


class PostgresLock:
    """A session-level advisory lock. Nothing here waits for longer than half a lease."""

    def __init__(self, name: str, service_file: str, lease: float = LEASE) -> None:
        self.lease = lease
        self.patience = lease / 2
        self.key = f"{self.number('fba.stack')}, {self.number(name)}"
        self.application = f"singleton:{name}@{socket.gethostname()}"[:63]
        self.connection: Any = None
        os.environ["PGSERVICEFILE"] = service_file

    @staticmethod
    def number(text: str) -> int:
        """Return a number for PostgreSQL's type integer that is the same everywhere."""
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big", signed=True)

    def connect(self) -> None:
        """Open a session that the server ends by itself once nothing has been asked for a lease and a second."""
        import psycopg

        with lost_on_error():
            self.connection = psycopg.connect(
                "service=lock",
                connect_timeout=max(2, int(self.patience)),
                application_name=self.application,
                options=f"-c idle_session_timeout={int((self.lease + 1) * 1000)} -c statement_timeout=2000",
                tcp_user_timeout=int(self.patience * 1000),
                autocommit=True,
            )

    def ask(self, query: str) -> str:
        """Return the only value of the answer. Not by `execute`, which would wait for as long as the connection is open."""
        import psycopg

        end = now() + self.patience
        libpq, value = self.connection.pgconn, b""
        with lost_on_error():
            libpq.send_query(query.encode())
            libpq.flush()
            while True:
                while libpq.is_busy():
                    if not select.select([libpq.socket], [], [], max(0.0, end - now()))[0]:
                        raise Lost(f"no answer in {self.patience:g} s")
                    libpq.consume_input()
                if (result := libpq.get_result()) is None:
                    return str(value, "ascii")
                if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
                    raise psycopg.OperationalError(str(result.error_message, "utf-8", "replace"))
                value = result.get_value(0, 0)

    def acquire(self) -> float | None:
        """Take the lock."""
        if self.connection is None:
            self.connect()
        if self.ask(f"SELECT pg_try_advisory_lock({self.key})") != "t":
            return None
        # A server that has restarted has forgotten its locks, but a holder that was cut off before has its lease. The start time is the
        # postmaster's; when that starts only the others anew, after a crash of one, it clears the statistics
        up = self.ask(
            "SELECT extract(epoch FROM clock_timestamp() - greatest(pg_postmaster_start_time(), stats_reset)) FROM pg_stat_bgwriter"
        )
        return min(max(self.lease - float(up), 0.0), self.lease)

    def renew(self) -> None:
        """Be heard of. That the lock is still there need not be asked: whoever has the session has it."""
        self.ask("SELECT 1")

    def wait(self, seconds: float, wake: int) -> None:
        """Wait, and see it at once if the server closes the connection."""
        if self.connection is None:
            select.select([wake], [], [], max(0.0, seconds))
            return
        with lost_on_error():
            libpq = self.connection.pgconn
            if libpq.socket in select.select([wake, libpq.socket], [], [], max(0.0, seconds))[0]:
                libpq.consume_input()

    def close(self) -> None:
        """End the session, and the lock with it."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def interpreter(command: str) -> list[str]:
    """Return how to call the Python that a command is for: itself, or what its first line names. No other program can be fenced."""
    found = shutil.which(command)
    if found is None:
        sys.exit(f"singleton: there is no program {command}")
    if is_python(found):
        return [found]
    with Path(found).open("rb") as file:
        first, _, _ = file.readline(4096).partition(b"\n")
    words = [word for word in os.fsdecode(first[2:]).split() if word != "-S"] if first.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = words[1:]
    if not words or not is_python(words[0]):
        sys.exit(f"singleton: {found} is no Python program; only such a program can be kept from running on without its lease")
    return words


def is_python(path: str) -> bool:
    """Return whether a program is a Python interpreter, by its name."""
    return re.fullmatch(r"python[0-9.]*", Path(path).name) is not None


class Singleton:
    """One host's part in the election."""

    def __init__(self, name: str, lock: Lock, python: list[str], program: list[str], stop_wait: float, lease: float = LEASE) -> None:
        self.name, self.lock, self.stop_wait, self.lease = name, lock, stop_wait, lease
        self.python, self.command = python, program
        self.program: subprocess.Popen[bytes] | None = None
        self.grants: int | None = None
        self.said = ""
        self.stopping = False
        # Signals and the end of the program end a wait
        self.wake, self.wake_end = os.pipe()
        for end in (self.wake, self.wake_end):
            os.set_blocking(end, False)

    def run(self) -> int:
        """Stand by and lead until told to stop, or until the program ends. Return the exit code."""
        signal.set_wakeup_fd(self.wake_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self.relay)
        signal.signal(signal.SIGCHLD, lambda *_arguments: None)
        self.show(os.getpid())
        code = None
        try:
            while code is None and (right := self.stand_by()):
                code = self.lead(*right)
        finally:
            self.lock.close()
        return code or 0

    def stop(self, *_arguments: object) -> None:
        """Note that this process is to end."""
        self.stopping = True

    def relay(self, number: int, _frame: object) -> None:
        """Pass a signal on. The process is there, or its remains are, until `end` has reaped it."""
        if self.program:
            os.kill(self.program.pid, number)

    def say(self, text: str, state: str = "") -> None:
        """Print a line, unless the state that it tells of is not new."""
        state = state or text
        if state != self.said:
            print(f"singleton: {self.name}{text}", flush=True)
        self.said = state

    def show(self, pid: int) -> None:
        """Write down which process has to go on waking up."""
        new = FOLDER / f".{self.name}.pid.{os.getpid()}"
        new.write_text(str(pid), encoding="ascii")
        new.replace(FOLDER / f"{self.name}.pid")

    def wait(self, until: float) -> None:
        """Wait until a time, a signal or the end of the program."""
        self.lock.wait(until - now(), self.wake)
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            pass

    def stand_by(self) -> tuple[float, float] | None:
        """Wait for the lock. Return when the lease ends and when the program may begin, or None if told to stop."""
        while not self.stopping:
            try:
                asked = now()
                older = self.lock.acquire()
                if older is not None:
                    return asked + self.lease, now() + older
                self.say(" stands by")
                self.wait(now() + PAUSE)
            except Lost as error:
                self.lock.close()
                self.say(f": PostgreSQL does not answer: {error}", "away")
                self.wait(now() + PAUSE)
        return None

    def lead(self, deadline: float, begin: float) -> int | None:
        """Run the program for as long as the lease is renewed. Return the exit code, or None if the lease was lost."""
        renewal = deadline - self.lease * 2 / 3
        kill = math.inf
        try:
            while True:
                # First of all: this process may have been frozen anywhere
                if now() >= deadline:
                    raise Lost("it was not renewed in time")
                if self.program is None:
                    if self.stopping:
                        return 0
                    if now() >= begin:
                        self.start(deadline)
                        self.say(" leads here")
                elif self.ended() or now() >= kill:
                    code = self.end()
                    if not self.stopping:
                        self.say(f": the program has ended with {code}")
                    return 0 if self.stopping else code
                elif self.stopping and kill == math.inf:
                    kill = now() + self.stop_wait
                    os.kill(self.program.pid, signal.SIGTERM)
                if now() >= renewal:
                    asked = now()
                    self.lock.renew()
                    deadline, renewal = asked + self.lease, asked + self.lease / 3
                    self.grant(deadline)
                self.wait(min(renewal, kill if self.program else begin))
        except Lost as error:
            self.end()
            self.say(f" has lost its lease; ending the program: {error}")
            return None
        finally:
            # Only now may another have the lock
            self.end()
            self.lock.close()

    def start(self, deadline: float) -> None:
        """Start the program with a lease, as the leader of a process group of its own."""
        leases, self.grants = os.pipe()
        os.set_blocking(self.grants, False)
        self.grant(deadline)
        command = [*self.python, str(LEASED), str(leases), str(os.getpid()), *self.command]
        self.program = subprocess.Popen(command, pass_fds=[leases], start_new_session=True, env=ENVIRONMENT)
        os.close(leases)
        self.show(self.program.pid)

    def grant(self, deadline: float) -> None:
        """Tell the program until when it may run."""
        try:
            if self.grants is not None:
                os.write(self.grants, f"{deadline:.3f}\n".encode("ascii"))
        except (BrokenPipeError, BlockingIOError):
            # Its end is noticed next. But by exec it has become a program without the timer
            if not self.ended():
                sys.exit(f"singleton: {self.name}: the program does not read its lease, so it cannot be fenced; ending it")

    def ended(self) -> bool:
        """Return whether the program has ended, and leave its remains to `end`."""
        return bool(self.program and os.waitid(os.P_PID, self.program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))

    def end(self) -> int:
        """Kill what is left of the program and of its process group. Return its exit code as a shell would."""
        # From here on no signal is passed on: its number will be another's
        program, self.program = self.program, None
        if program is None:
            return 0
        os.killpg(program.pid, signal.SIGKILL)
        code = program.wait()
        if self.grants is not None:
            os.close(self.grants)
            self.grants = None
        self.show(os.getpid())
        return code if code >= 0 else 128 - code


def main() -> None:
    """Take part in the election."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--service-file", required=True)
    parser.add_argument("--stop-wait", type=float, required=True)
    parser.add_argument("--python", help="the interpreter to run the program with, if the program's first line does not tell")
    parser.add_argument("program", nargs="+")
    arguments = parser.parse_args()
    python = [arguments.python] if arguments.python else interpreter(arguments.program[0])
    lock = PostgresLock(arguments.name, arguments.service_file)
    sys.exit(Singleton(arguments.name, lock, python, arguments.program, arguments.stop_wait).run())


if __name__ == "__main__":
    main()
