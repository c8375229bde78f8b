"""Ask every pool of this container whether it consumes: check.py; or whether that can wait: check.py --away HOST:PORT

The pools have written down how their broker is reached (`broker_settings`), so the application need not be imported, nor Celery. They are
asked what `celery inspect active_queues` asks.

The second one is asked when the first has failed. Without a broker no pool can answer, and restarting them helps nobody. A pool that was
just started has time to begin, until it has answered once; one that ends again and again is supervisord's business, which lets the other
pools finish what they do.
"""

import argparse
import contextlib
import pickle
import socket
import sys
import time
from pathlib import Path
from typing import Any

from kombu import Connection
from kombu.pidbox import Mailbox

# Seconds that the pools have to answer
PATIENCE = 5.0
# Seconds that they have while one of them begins: who does not listen yet never hears the question, and is asked again soon
SHORT_PATIENCE = 1.0
# Seconds that a pool has from its start to its first answer, also where all cores are busy
START = 30.0
# Of the file beside that with a pool's name: the name under which it has answered
ANSWERED = ".answered"
# Of the file in which they have written down how their broker is reached
SETTINGS = "broker.pickle"


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


def broker_settings() -> dict[str, dict[str, Any]] | None:
    """Return how the pools reach their broker, or None where none of them has got so far."""
    path = Path("/tmp") / SETTINGS
    # Only this user can have written it
    return pickle.loads(path.read_bytes()) if path.exists() else None


def has_answered(path: Path) -> bool:
    """Return whether a pool has answered a check since its last start."""
    answered = path.with_suffix(ANSWERED)
    return answered.exists() and answered.read_text(encoding="ascii") == path.read_text(encoding="ascii")


def pool_begins() -> bool:
    """Return whether a pool was started less than `START` seconds ago, and has not answered yet."""
    now = time.time()
    # A start in the future is that of a clock which was set back since, and says nothing
    return any(0 <= now - path.stat().st_mtime < START and not has_answered(path) for path in node_files())


def silent_pools(settings: dict[str, dict[str, Any]], nodes: set[str], patience: float) -> set[str]:
    """Return the nodes that do not answer within `patience` seconds, or consume no queue."""
    with Connection(**settings["connection"]) as connection:
        replies = Mailbox(**settings["mailbox"])(connection).call(sorted(nodes), "active_queues", timeout=patience)
    return nodes - {node for reply in replies or [] for node, queues in reply.items() if queues and "error" not in queues}


def main() -> None:
    """Exit with 0 if all is well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--away", metavar="HOST:PORT")
    # Of no use any more. The containers of version 1.0 ask with it, until they are replaced
    parser.add_argument("-A", "--app", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.away:
        if not (broker_is_away(arguments.away) or pool_begins()):
            sys.exit(f"{arguments.away} takes connections, and every pool has had {START:.0f} s to begin")
        return
    nodes = {path: path.read_text(encoding="ascii") for path in node_files()}
    if not nodes:
        sys.exit("no pool has started yet")
    settings = broker_settings()
    if settings is None:
        sys.exit("no pool has written down yet how its broker is reached; if this lasts, its log says why")
    silent = silent_pools(settings, set(nodes.values()), SHORT_PATIENCE if pool_begins() else PATIENCE)
    for path, node in nodes.items():
        if node not in silent and not has_answered(path):
            # Where the disk is full, it has the time of a start once more
            with contextlib.suppress(OSError):
                path.with_suffix(ANSWERED).write_text(node, encoding="ascii")
    if silent:
        sys.exit(f"no answer from {', '.join(sorted(silent))}")


if __name__ == "__main__":
    main()
