"""A form with one file, read as it comes: the file's bytes touch no disk here and fill no memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from fba_app.problems import InvalidError, ProblemError, UnsupportedTypeError

FIELD = "file"


@dataclass(frozen=True)
class FilePart:
    """A file in a form, not yet read."""

    name: str
    content_type: str
    """As the client declares it, without parameters; may be empty."""
    chunks: AsyncIterator[bytes]
    """Raises ProblemError, also after the last byte, if anything is wrong with the form."""


class _Headers(dict[str, str]):
    """The headers of a part; the bytes that follow belong to it."""


class _Parser:
    """Turns a body into the headers and the bytes of its parts."""

    def __init__(self, boundary: bytes) -> None:
        self.ended = False
        self._events: list[_Headers | bytes] = []
        self._headers = _Headers()
        self._name = b""
        self._value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> list[_Headers | bytes]:
        self._parser.write(data)
        events, self._events = self._events, []
        return events

    def _part_begin(self) -> None:
        self._headers = _Headers()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        self._events.append(self._headers)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _end(self) -> None:
        self.ended = True


async def _events(request: Request) -> AsyncIterator[_Headers | bytes]:
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        raise UnsupportedTypeError("The request's content must be multipart/form-data.")
    boundary = options.get(b"boundary")
    if not boundary:
        raise ProblemError("The form's boundary is not declared.")
    try:
        parser = _Parser(boundary)
        async for data in request.stream():
            for event in parser.feed(data):
                yield event
    except FormParserError as error:
        raise ProblemError(f"The form is broken: {error}") from None
    except ClientDisconnect:
        raise ProblemError("The form breaks off.") from None
    if not parser.ended:
        raise ProblemError("The form breaks off.")


async def _chunks(events: AsyncIterator[_Headers | bytes]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, _Headers):
            raise InvalidError(f"The form must have one field, `{FIELD}`, once.")
        yield event


async def read_form(request: Request) -> FilePart:
    """Read as far as the file begins.

    Raises:
        ProblemError: the request is no such form.
    """
    events = _events(request)
    headers = await anext(events, None)
    if not isinstance(headers, _Headers):
        raise InvalidError("A file is missing.", ("body", FIELD))
    _, options = parse_options_header(headers.get("content-disposition"))
    if options.get(b"name") != FIELD.encode():
        raise InvalidError(f"The form must have one field, `{FIELD}`, once.")
    if b"filename" not in options:
        raise InvalidError("This must be a file, with a name.", ("body", FIELD))
    declared, _ = parse_options_header(headers.get("content-type"))
    return FilePart(
        name=_decode(options[b"filename"]),
        content_type=declared.decode("latin-1"),
        chunks=_chunks(events),
    )


def _decode(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
