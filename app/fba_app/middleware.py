"""What happens to every request, whatever route it takes."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fba_app.errors import answer
from fba_app.problems import TooLargeError

UPLOAD_PATHS = ("/api/v1/files", "/files")
"""Where a request may be as long as an upload; the route itself counts what it keeps."""

MULTIPART_OVERHEAD = 2**20
"""Bytes that an upload's request may have beyond the file's."""

GRACE = 2**20
"""Bytes beyond the limit of an ordinary request that are read all the same, to be thrown away."""

CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# Swagger UI starts itself with a script in its page.
CONTENT_POLICIES = {"/docs": f"{CONTENT_POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"}

SECURITY_HEADERS = {
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


async def read_to_the_end(receive: Receive, most: int) -> None:
    """Throw away what is left of a request's body, unless it is more than so many bytes."""
    while most >= 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return
        most -= len(message.get("body", b""))


class BodyLimit:
    """Refuses requests that are too long: by what they say at once, and by what they send when it gets too much.

    What was answered before its body was read is read to the end, unless it is an upload: the connection is closed
    behind an answer, and whoever is still sending, as nginx is, would find it broken and not read the answer.
    """

    def __init__(self, app: ASGIApp, *, request_max_size: int, upload_max_size: int) -> None:
        self.app = app
        self.request_max_size = request_max_size
        self.upload_max_size = upload_max_size + MULTIPART_OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.upload_max_size if scope["path"] in UPLOAD_PATHS else self.request_max_size
        detail = f"A request here may have {limit} bytes."
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            await answer(400, "bad_request", "Content-Length must be a number.")(scope, receive, send)
            return
        most = self.request_max_size + GRACE
        is_short = int(declared) <= most
        if int(declared) > limit:
            if is_short:
                await read_to_the_end(receive, most)
            await answer(TooLargeError.status, TooLargeError.code, detail)(scope, receive, send)
            return
        received = 0
        is_read = int(declared) == 0

        async def counted() -> Message:
            nonlocal received, is_read
            message = await receive()
            is_read = message["type"] != "http.request" or not message.get("more_body")
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise TooLargeError(detail)
            return message

        async def after_the_body(message: Message) -> None:
            nonlocal is_read
            if not is_read and is_short:
                is_read = True
                await read_to_the_end(receive, most - received)
            await send(message)

        await self.app(scope, counted, after_the_body)


class SecurityHeaders:
    """Tells browsers what a page of this site may do. A route that sets one of the headers itself has its way."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                policy = CONTENT_POLICIES.get(scope["path"], CONTENT_POLICY)
                headers.setdefault("Content-Security-Policy", policy)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
