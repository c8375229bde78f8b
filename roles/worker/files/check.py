"""Ask every pool of this container whether it consumes: check.py -A APPLICATION [--broker HOST:PORT]

With --broker, a broker that takes no connections counts as success: the workers cannot answer then, and restarting them helps nobody.
"""

import argparse
import socket
import sys
from pathlib import Path

from celery import Celery
from celery.app.utils import find_app

# Seconds that the pools have to answer
PATIENCE = 5.0


def broker_is_away(address: str) -> bool:
    """Return whether nothing takes connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return False
    except OSError:
        return True


def silent_pools(app: Celery, nodes: set[str]) -> set[str]:
    """Return the nodes that do not answer, or consume no queue."""
    answers = app.control.inspect(destination=sorted(nodes), timeout=PATIENCE).active_queues() or {}
    return {node for node in nodes if not answers.get(node)}


def main() -> None:
    """Exit with 0 if all is well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-A", "--app", required=True)
    parser.add_argument("--broker")
    arguments = parser.parse_args()
    if arguments.broker and broker_is_away(arguments.broker):
        return
    nodes = {path.read_text(encoding="ascii") for path in Path("/tmp").glob("*.node")}
    if not nodes:
        sys.exit("no pool has started yet")
    if silent := silent_pools(find_app(arguments.app), nodes):
        sys.exit(f"no answer from {', '.join(sorted(silent))}")


if __name__ == "__main__":
    main()
