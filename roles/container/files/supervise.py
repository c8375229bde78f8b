"""Supervisor's event listener in every application container.

It repeats what the programs print on the container's output, and ends supervisord, so the container, when a program does not stay up:
Docker's restart policy and the health check only see a container that ends. Supervisor itself gives up on a program that ends within its
`startsecs`; one that first imports for some seconds and then crashes it would start again for ever, so the ends are counted here too.

Supervisor's protocol for listeners is a few lines of text, and spoken here as its documentation has it: its own module for it loads
supervisor's servers too, which are 9 MB in every container.
"""

import contextlib
import os
import signal
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

ENDS = 5
"""As often a program may end by itself within `WITHIN` before it is given up on: as often as supervisor's `startretries`."""

STOPPING = Path("/tmp/.fba-stopping")
"""Says to the health check (`probe.sh`) that the container was asked to end. Its programs answer no longer, and finish what they do. Where
one of them was given up on, the others are not waited for so long: somebody has to take over."""

WITHIN = 300.0
"""Seconds. As long as a program's `wait_timeout`, so one that only waits for a service that is away is never given up on."""


def fields(text: str) -> dict[str, str]:
    """Return what a line such as `processname:io pid:7` says, by name."""
    return dict(pair.split(":", 1) for pair in text.split())


def events() -> Iterator[tuple[str, str]]:
    """Yield the name and the payload of each event, until supervisor ends. To go on tells supervisor that it was handled."""
    while True:
        print("READY", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        headers = fields(line)
        yield headers["eventname"], sys.stdin.read(int(headers["len"]))
        sys.stdout.write("RESULT 2\nOK")
        sys.stdout.flush()


def main() -> None:
    """Answer supervisor's events until it ends."""
    ends: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=ENDS))
    given_up = False
    for event, payload in events():
        if event == "SUPERVISOR_STATE_CHANGE_STOPPING":
            if not given_up:
                # Where the disk is full, the health check may end them sooner
                with contextlib.suppress(OSError):
                    STOPPING.touch()
        elif event.startswith("PROCESS_STATE_"):
            name = fields(payload)["processname"]
            last = ends[name]
            last.append(time.monotonic())
            often = len(last) == ENDS and last[-1] - last[0] < WITHIN
            if often or event == "PROCESS_STATE_FATAL":
                print(f"supervise: {name} does not stay up; ending the container", file=sys.stderr, flush=True)
                given_up = True
                os.kill(os.getppid(), signal.SIGTERM)
        else:
            # After a line of fields
            sys.stderr.write(payload.partition("\n")[2])
            sys.stderr.flush()


if __name__ == "__main__":
    main()
