"""Measure one run of a playbook."""

import re
import resource
import subprocess
import time


def measure(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command of ansible-playbook that must succeed, and return what it took.

    `seconds`; `tasks`: those that were begun on at least one host; `cpu_seconds`: processor time on the controller, of all its processes;
    `changed`: the number of changes on all hosts.

    Raises:
        RuntimeError: it has failed; the message has what it printed.
    """
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
    }
