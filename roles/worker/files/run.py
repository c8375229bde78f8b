"""Run one pool under a node name that no earlier process had: run.py POOL COMMAND…

A worker that starts under a name whose old connection still lives is refused its control queue: it would consume, but never answer again.
The name is kept in /tmp for the health check. Celery imports what include/ has.
"""

import os
import secrets
import socket
import sys
from pathlib import Path

INCLUDE = "/opt/include"


def main() -> None:
    """Become the worker."""
    pool, *command = sys.argv[1:]
    node = f"{pool}-{secrets.token_hex(4)}@{socket.gethostname()}"
    Path(f"/tmp/{pool}.node").write_text(node, encoding="ascii")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [INCLUDE, os.environ.get("PYTHONPATH")]))
    os.execvp(command[0], [*command, "-n", node, "--include", "tls_errors"])


if __name__ == "__main__":
    main()
