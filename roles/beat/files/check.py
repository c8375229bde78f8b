"""Tell whether beat still goes round its loop: check.py SECONDS

Any application's scheduler wakes up every few seconds, and whenever a process goes to sleep the kernel counts it. So a count that has not
moved for SECONDS means that beat hangs, and nothing of the application has to be asked.
"""

import json
import sys
import time
from pathlib import Path

PID_FILE = Path("/tmp/beat.pid")
STATE_FILE = Path("/tmp/beat.check")


def sleeps(pid: int) -> int:
    """Return how often the process has gone to sleep by itself. Raises FileNotFoundError where there is no such process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "voluntary_ctxt_switches":
            return int(value)
    raise ValueError("the kernel does not count context switches")


def main() -> None:
    """Exit with 0 if the count has moved lately."""
    patience = float(sys.argv[1])
    now = time.time()
    try:
        pid = int(PID_FILE.read_text(encoding="ascii"))
        count = sleeps(pid)
    except FileNotFoundError:
        sys.exit("beat is not running")
    try:
        last = json.loads(STATE_FILE.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        last = None
    if last is None or [last["pid"], last["count"]] != [pid, count]:
        STATE_FILE.write_text(json.dumps({"pid": pid, "count": count, "since": now}), encoding="ascii")
    elif now - last["since"] > patience:
        sys.exit(f"beat has not woken up for {now - last['since']:.0f} s")


if __name__ == "__main__":
    main()
