"""What the tasks of every contender do, and how the bench hears of it: one datagram for each task, to the host that the container runs on.

The same few lines for all, so that what differs is the contender. The standard library alone, because each contender has an environment of
its own.
"""

import functools
import socket
import struct
import time
from pathlib import Path

PORT = 9125
"""Where `measure.py` listens on the host."""

KINDS = ("noop", "wait", "cpu")
"""In the order of their numbers in a datagram."""

DATAGRAM = struct.Struct("!Bdd")
"""Number of the kind; when the task was submitted, and when it began: seconds since the epoch."""

WAIT = 1.0
"""Seconds that `wait` waits for, as for an answer of another service."""

CPU = 0.05
"""Seconds of processor time that `cpu` takes."""


def gateway() -> str:
    """Return the address of the host in the container's network."""
    for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
        _interface, destination, address, *_rest = line.split()
        if int(destination, 16) == 0:
            return socket.inet_ntoa(struct.pack("<L", int(address, 16)))
    raise RuntimeError("the container's network has no gateway, so nobody can be told of tasks")


@functools.cache
def _reporter() -> socket.socket:
    reporter = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    reporter.connect((gateway(), PORT))
    return reporter


def report(kind: str, submitted_at: float, began_at: float) -> None:
    """Tell that a task is done."""
    _reporter().send(DATAGRAM.pack(KINDS.index(kind), submitted_at, began_at))


def noop(submitted_at: float) -> None:
    """Do nothing."""
    report("noop", submitted_at, time.time())


def wait(submitted_at: float) -> None:
    """Wait as for an answer of another service."""
    began_at = time.time()
    time.sleep(WAIT)
    report("wait", submitted_at, began_at)


def cpu(submitted_at: float) -> None:
    """Compute, in this thread."""
    began_at = time.time()
    start = time.thread_time()
    while time.thread_time() - start < CPU:
        sum(range(1000))
    report("cpu", submitted_at, began_at)


TASKS = {"noop": noop, "wait": wait, "cpu": cpu}


def at_rate(count: int, rate: float):
    """Yield `count` times, so many times a second; as fast as possible for a rate of 0."""
    start = time.monotonic()
    for number in range(count):
        if rate and (early := start + number / rate - time.monotonic()) > 0:
            time.sleep(early)
        yield number
