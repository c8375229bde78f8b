"""Start a program once what it needs takes connections: launch.py --wait=HOST:PORT… --timeout=SECONDS -- PROGRAM…"""

import argparse
import os
import socket
import sys
import time

PAUSE = 0.5
REPORT_EVERY = 10


def answers(address: str) -> bool:
    """Return whether something takes connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def main() -> None:
    """Wait for every address, then become the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--wait", action="append", default=[])
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("program", nargs="+")
    arguments = parser.parse_args()

    start = last_report = time.monotonic()
    waiting = list(arguments.wait)
    while waiting := [address for address in waiting if not answers(address)]:
        now = time.monotonic()
        if now - start > arguments.timeout:
            sys.exit(f"launch: no answer from {', '.join(waiting)} in {arguments.timeout:.0f} s")
        if now - last_report > REPORT_EVERY:
            print(f"launch: waiting for {', '.join(waiting)}", flush=True)
            last_report = now
        time.sleep(PAUSE)
    os.execvp(arguments.program[0], arguments.program)


if __name__ == "__main__":
    main()
