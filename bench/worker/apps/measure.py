"""Start a container of workers, and count the tasks that it reports: measure.py CONTAINER SECONDS WARM_UP LIMITS [LOAD…].

Runs on the host, with its Python alone. The queue has been filled before; LOAD, a command, is run once the first task is reported, for
instance to go on filling it. LIMITS is JSON, kind to the number of tasks with which the measurement ends earlier.

Prints JSON: `tasks` per kind, `seconds`, `first` seconds from the start to the first task, `cpu_seconds` of the container, `users` the
processor seconds of each container that runs and of the `rest` of the machine, `busy` the share of all cores that was used, `memory` in
bytes at the end, without files that can be read again, and of each kind the `queued` seconds at percentiles 50 and 99.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measured import DATAGRAM, KINDS, PORT

PATIENCE = 90.0
"""Seconds that a container has for its first task, from its start."""


def cgroups(controller: str) -> dict[str, Path]:
    """Return the folders in which the kernel accounts for the containers that run. One that has just ended has none."""
    docker = ["docker", "ps", "--no-trunc", "--format", "{{ .Names }} {{ .ID }}"]
    lines = subprocess.run(docker, check=True, capture_output=True, text=True).stdout.splitlines()
    root = Path("/sys/fs/cgroup")
    tree = root / controller if (root / controller).is_dir() else root
    found = {name: next((path for path in tree.glob(f"**/*{id_}*") if path.is_dir()), None) for name, id_ in map(str.split, lines)}
    return {name: path for name, path in found.items() if path}


def cpu_seconds(group: Path) -> float:
    """Return the processor time of a group, in either version of cgroups."""
    if (usage := group / "cpuacct.usage").exists():
        return int(usage.read_text()) / 1e9
    return int(dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())["usage_usec"]) / 1e6


def memory(group: Path) -> int:
    """Return the bytes that a group holds, as `docker stats` counts them."""
    usage = next(file for file in (group / "memory.current", group / "memory.usage_in_bytes") if file.exists())
    details = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(usage.read_text()) - int(details.get("total_inactive_file", details["inactive_file"]))


def busy_and_all() -> tuple[float, float]:
    """Return the machine's processor seconds since it was started: used, and in all."""
    seconds = [int(value) / os.sysconf("SC_CLK_TCK") for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(seconds) - seconds[3] - seconds[4], sum(seconds)


def receive(listener: socket.socket, until: float, limits: dict[int, int]) -> list[tuple[int, float, float]]:
    """Return what is reported up to a moment of the monotonic clock, or until a kind has come to its limit.

    What is reported is taken off the limits (number of a kind to tasks).
    """
    reports = []
    while (left := until - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            reports.append(DATAGRAM.unpack(listener.recv(64)))
        except TimeoutError:
            break
        kind = reports[-1][0]
        if kind in limits:
            limits[kind] -= 1
            if limits[kind] <= 0:
                break
    return reports


def percentiles(values: list[float]) -> list[float]:
    """Return the median and the 99th percentile."""
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return [round(cuts[49], 4), round(cuts[98], 4)]


def main() -> None:
    """Measure, and print it."""
    container, seconds, warm_up, most, *load = sys.argv[1:]
    limits = {list(KINDS).index(name): count for name, count in json.loads(most).items()}
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
    listener.bind(("", PORT))
    started = time.monotonic()
    subprocess.run(["docker", "start", container], check=True, stdout=subprocess.DEVNULL)
    listener.settimeout(PATIENCE)
    try:
        listener.recv(64)
    except TimeoutError:
        logs = subprocess.run(["docker", "logs", "--tail", "30", container], capture_output=True, text=True, check=True)
        sys.exit(f"{container} has done no task in {PATIENCE:.0f} s:\n{logs.stdout}{logs.stderr}")
    first = time.monotonic() - started
    loader = subprocess.Popen(load, stdout=subprocess.DEVNULL) if load else None
    receive(listener, time.monotonic() + float(warm_up), limits)

    groups, account = cgroups("cpuacct"), cgroups("memory")[container]
    before, (busy, total), begin = {name: cpu_seconds(group) for name, group in groups.items()}, busy_and_all(), time.monotonic()
    reports = receive(listener, begin + float(seconds), limits)
    took = time.monotonic() - begin
    used, (now_busy, now_total) = {name: cpu_seconds(group) - before[name] for name, group in groups.items()}, busy_and_all()
    users = {**used, "rest": now_busy - busy - sum(used.values())}
    result = {
        "tasks": {name: sum(kind == number for kind, _, _ in reports) for number, name in enumerate(KINDS)},
        "seconds": round(took, 3),
        "first": round(first, 1),
        "cpu_seconds": round(used[container], 3),
        "users": {name: round(value, 3) for name, value in users.items()},
        "busy": round((now_busy - busy) / (now_total - total), 3),
        "memory": memory(account),
        "queued": {
            name: percentiles(waited)
            for number, name in enumerate(KINDS)
            if (waited := [began - submitted for kind, submitted, began in reports if kind == number])
        },
    }
    if loader:
        if loader.poll() not in (None, 0):
            sys.exit(f"{' '.join(load)}: ended with {loader.returncode}")
        loader.kill()
        loader.wait()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
