"""Supervisor's event listener in every application container.

It repeats what the programs print on the container's output, and ends supervisord, so the container, when a program is given up on:
Docker's restart policy and the health check only see a container that ends.
"""

import os
import signal
import sys

from supervisor.childutils import eventdata, get_headers, listener


def main() -> None:
    """Answer supervisor's events until it ends."""
    while True:
        headers, payload = listener.wait()
        if headers["eventname"] == "PROCESS_STATE_FATAL":
            name = get_headers(payload)["processname"]
            print(f"supervise: {name} does not stay up; ending the container", file=sys.stderr, flush=True)
            os.kill(os.getppid(), signal.SIGTERM)
        else:
            _headers, data = eventdata(payload)
            sys.stderr.write(data)
            sys.stderr.flush()
        listener.ok()


if __name__ == "__main__":
    main()
