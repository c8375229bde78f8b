"""Become a program once a worker consumes: run.py APPLICATION SECONDS COMMAND…

What beat sends while no worker has declared the queues would have nowhere to go.
"""

import os
import sys
import time

from celery.app.utils import find_app


def main() -> None:
    """Wait for any worker's answer, then become the program."""
    application, seconds, *command = sys.argv[1:]
    app = find_app(application)
    deadline = time.monotonic() + float(seconds)
    # A ping waits a second for answers by itself
    while not app.control.ping(timeout=1.0):
        if time.monotonic() > deadline:
            sys.exit(f"beat: no worker has answered in {seconds} s")
        print("beat: waiting for a worker", flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
