"""Measure runs of playbooks, and what they bring over the wire."""

import re
import resource
import subprocess
import time
from collections.abc import Iterable

from bench.host import Host

ROLE = re.compile(r"^(\w+) -+ ([\d.]+)s$", re.MULTILINE)
"""A role, by its name within the collection, and its seconds."""

Run = dict[str, float]
"""What a run of a playbook took: see `measure`."""


def measure(command: list[str], environment: dict[str, str]) -> Run:
    """Run a command of ansible-playbook that must succeed, and return what it took.

    `seconds`; `tasks`: those that were begun on at least one host; `cpu_seconds`: processor time on the controller, of all its processes;
    `changed`: the number of changes on all hosts; `images`: the seconds that the role `images` took of it.

    Raises:
        RuntimeError: it has failed; the message has what it printed.
    """
    # What ansible.cfg enables, and what tells of the roles
    environment = environment | {"ANSIBLE_CALLBACKS_ENABLED": "fba.stack.fork_tuning,ansible.posix.profile_roles"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{run.stdout}")
    return {
        "seconds": round(seconds, 1),
        "tasks": len(re.findall(r"^TASK \[", run.stdout, re.MULTILINE)),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "changed": sum(map(int, re.findall(r" changed=(\d+) ", run.stdout))),
        "images": float(dict(ROLE.findall(run.stdout))["images"]),
    }


def received(hosts: Iterable[Host]) -> list[int]:
    """Return the bytes that each host has received over its network since it was started."""
    return [int(host.check_output("cat /sys/class/net/eth0/statistics/rx_bytes")) for host in hosts]
