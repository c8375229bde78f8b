"""Ask every pool of this container whether it consumes: check.py -A APPLICATION; or whether that can wait: check.py --away HOST:PORT

The second one is asked when the first has failed. Without a broker no pool can answer, and restarting them helps nobody. A pool that was
just started has time to begin; one that ends again and again is supervisord's business, which lets the other pools finish what they do.
"""

import argparse
import socket
import sys
import time
from pathlib import Path

from celery import Celery
from celery.app.utils import find_app

# Seconds that the pools have to answer
PATIENCE = 5.0
# Seconds that a pool has from its start to its first answer, also where all cores are busy
START = 30.0


def broker_is_away(address: str) -> bool:
    """Return whether nothing takes connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return False
    except OSError:
        return True


def node_files() -> list[Path]:
    """Return the files in which each pool's last start has written its name."""
    return list(Path("/tmp").glob("*.node"))


def pool_begins() -> bool:
    """Return whether a pool was started less than `START` seconds ago."""
    now = time.time()
    # A start in the future is that of a clock which was set back since, and says nothing
    return any(0 <= now - path.stat().st_mtime < START for path in node_files())


def silent_pools(app: Celery, nodes: set[str]) -> set[str]:
    """Return the nodes that do not answer, or consume no queue."""
    answers = app.control.inspect(destination=sorted(nodes), timeout=PATIENCE).active_queues() or {}
    return {node for node in nodes if not answers.get(node)}


def main() -> None:
    """Exit with 0 if all is well."""
    parser = argparse.ArgumentParser()
    question = parser.add_mutually_exclusive_group(required=True)
    question.add_argument("-A", "--app")
    question.add_argument("--away")
    arguments = parser.parse_args()
    if arguments.away:
        if not (broker_is_away(arguments.away) or pool_begins()):
            sys.exit(f"{arguments.away} takes connections, and every pool has had {START:.0f} s to begin")
        return
    nodes = {path.read_text(encoding="ascii") for path in node_files()}
    if not nodes:
        sys.exit("no pool has started yet")
    if silent := silent_pools(find_app(arguments.app), nodes):
        sys.exit(f"no answer from {', '.join(sorted(silent))}")


if __name__ == "__main__":
    main()
