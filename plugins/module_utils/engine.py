# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the engine says, for modules that have one question of it and need no library for that."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

SOCKET = "/var/run/docker.sock"
# Seconds without a word of the engine after which it counts as away; and for a question whose answer decides what happens next, because an
# engine that is busy says nothing for longer
PATIENCE = 10.0
LONG_PATIENCE = 60.0


class EngineAway(Exception):
    """The engine does not answer, or answers with an error of its own."""


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket."""

    def connect(self) -> None:
        """Connect to the engine."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def _answer(method: str, path: str, body: Any, patience: float) -> bytes | None:
    """Return what the engine answers, or None where it knows no such thing."""
    connection = EngineConnection("localhost", timeout=patience)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 404:
            return None
        if not 200 <= answer.status < 300:
            raise EngineAway(f"it answers {answer.status}: {content.decode('utf-8', 'replace').strip()}")
        return content
    except (OSError, http.client.HTTPException) as error:
        raise EngineAway(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def look_up(path: str, patience: float = LONG_PATIENCE) -> Any:
    """Return the engine's JSON answer, or None where it knows no such thing.

    Raises:
        EngineAway: it has not answered within so many seconds, or not so.
    """
    content = _answer("GET", path, None, patience)
    try:
        return None if content is None else json.loads(content)
    except ValueError as error:
        raise EngineAway(str(error)) from error


def tell(method: str, path: str, body: Any = None, patience: float = LONG_PATIENCE) -> None:
    """Have the engine do something, with `body` as JSON.

    Raises:
        EngineAway: it has not answered within so many seconds, has refused, or knows no such thing.
    """
    if _answer(method, path, body, patience) is None:
        raise EngineAway(f"it knows nothing of {path}")


def ask_engine(path: str) -> Any:
    """Return the engine's JSON answer, or None where no engine answers or it knows no such thing."""
    try:
        return look_up(path, PATIENCE)
    except EngineAway:
        return None
