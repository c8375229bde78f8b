"""Have Granian start new processes, which read their certificate anew: reload.py PROGRAM SECONDS. Wait until the old ones have ended.

They end when what they do is done, at the latest after Granian's own timeout for it; new connections are the new ones' meanwhile.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SUPERVISORCTL = ("/opt/supervisor/bin/supervisorctl", "-c", "/etc/supervisor/supervisord.conf")
PAUSE = 0.2


def is_alive(pid: int) -> bool:
    """Return whether a process is there and not merely its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers(pid: int) -> set[int]:
    """Return the processes that a process has started and that have not ended."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return {int(child) for child in children if is_alive(int(child))}


def main() -> None:
    """Exit with 0 once only new processes are there."""
    program, patience = sys.argv[1], float(sys.argv[2])
    answer = subprocess.run([*SUPERVISORCTL, "pid", f"programs:{program}"], capture_output=True, text=True, check=False).stdout.strip()
    if not answer.isdigit() or answer == "0":
        # What is not running reads its certificate when it starts
        return
    pid = int(answer)
    old = workers(pid)
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + patience
    while left := {worker for worker in old if is_alive(worker)}:
        if time.monotonic() > deadline:
            sys.exit(f"reload: after {patience:g} s, processes of {program} have not ended: {sorted(left)}")
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
