"""Run one process of a pool under a node name that no earlier one had: run.py NAME [--quiet-tasks] COMMAND…

A worker that starts under a name whose old connection still lives is refused its control queue: it would consume, but never answer again.
The name is kept in /tmp for the health check. Celery imports what include/ has: some of it only for pools of greenlets, quiet_tasks only if
it is asked for.
"""

import os
import secrets
import socket
import sys
from pathlib import Path

INCLUDE = "/opt/include"
MODULES = ["tls_errors", "broker_settings", "buffered_events", "less_memory"]
GREENLETS = ["batched_broker", "lean_greenlets"]
QUIET = "--quiet-tasks"


def main() -> None:
    """Become the worker."""
    name, *command = sys.argv[1:]
    modules = list(MODULES)
    if command[0] == QUIET:
        del command[0]
        modules.append("quiet_tasks")
    if "gevent" in command:
        modules += GREENLETS
    node = f"{name}-{secrets.token_hex(4)}@{socket.gethostname()}"
    Path(f"/tmp/{name}.node").write_text(node, encoding="ascii")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [INCLUDE, os.environ.get("PYTHONPATH")]))
    os.execvp(command[0], [*command, "-n", node, "--include", ",".join(modules)])


if __name__ == "__main__":
    main()
