"""Supervisor's event listener in every application container.

It repeats what the programs print on the container's output, and ends supervisord, so the container, when a program does not stay up:
Docker's restart policy and the health check only see a container that ends. Supervisor itself gives up on a program that ends within its
`startsecs`; one that first imports for some seconds and then crashes it would start again for ever, so the ends are counted here too.
"""

import os
import signal
import sys
import time
from collections import defaultdict, deque

from supervisor.childutils import eventdata, get_headers, listener

ENDS = 5
"""As often a program may end by itself within `WITHIN` before it is given up on: as often as supervisor's `startretries`."""

WITHIN = 300.0
"""Seconds. As long as a program's `wait_timeout`, so one that only waits for a service that is away is never given up on."""


def main() -> None:
    """Answer supervisor's events until it ends."""
    ends: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=ENDS))
    while True:
        headers, payload = listener.wait()
        if headers["eventname"].startswith("PROCESS_STATE_"):
            name = get_headers(payload)["processname"]
            last = ends[name]
            last.append(time.monotonic())
            often = len(last) == ENDS and last[-1] - last[0] < WITHIN
            if often or headers["eventname"] == "PROCESS_STATE_FATAL":
                print(f"supervise: {name} does not stay up; ending the container", file=sys.stderr, flush=True)
                os.kill(os.getppid(), signal.SIGTERM)
        else:
            _headers, data = eventdata(payload)
            sys.stderr.write(data)
            sys.stderr.flush()
        listener.ok()


if __name__ == "__main__":
    main()
