"""What is left of a body that was answered too early."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from fba_app.middleware import GRACE, BodyLimit

LIMIT = 4000
CHUNK = 1000


def exchange(
    application: Callable[[Scope, Receive, Send], Any], *, size: int, declared: bool = True, path: str = "/"
) -> tuple[int, int]:
    """Send a body in chunks; return how many bytes were read before the answer began, and its status."""
    chunks = [CHUNK] * (size // CHUNK)
    read, status, read_before = 0, 0, -1

    async def receive() -> Message:
        nonlocal read
        if not chunks:
            return {"type": "http.disconnect"}
        length = chunks.pop()
        read += length
        return {"type": "http.request", "body": b"x" * length, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        nonlocal status, read_before
        if message["type"] == "http.response.start":
            status, read_before = message["status"], read

    headers = [(b"content-length", str(size).encode())] if declared else []
    scope = {"type": "http", "path": path, "method": "POST", "headers": headers, "query_string": b""}
    limited = BodyLimit(application, request_max_size=LIMIT, upload_max_size=100 * GRACE)
    asyncio.run(limited(scope, receive, send))
    return read_before, status


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without a look at the body."""
    await send({"type": "http.response.start", "status": 405, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def thorough(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, then answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("application", "size", "path", "read", "status"),
    [
        (hasty, 4000, "/", 4000, 405),
        (thorough, 4000, "/", 4000, 200),
        (hasty, 0, "/", 0, 405),
        # Longer than it may be, by so little that it is read all the same
        (hasty, 5000, "/", 5000, 413),
        # By so much that it is not
        (hasty, 2 * GRACE // CHUNK * CHUNK, "/", 0, 413),
        # An upload may be long, and is not read to be refused
        (hasty, 2 * GRACE // CHUNK * CHUNK, "/files", 0, 405),
    ],
)
def test_an_answer_waits_for_the_end_of_a_short_body(
    application: Any, size: int, path: str, read: int, status: int
) -> None:
    assert exchange(application, size=size, path=path) == (read, status)


def test_nobody_is_read_for_ever() -> None:
    async def refused(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await hasty(scope, receive, send)

    read, status = exchange(refused, size=10 * GRACE // CHUNK * CHUNK, declared=False)
    assert status == 405
    assert LIMIT + GRACE <= read <= LIMIT + GRACE + 2 * CHUNK
