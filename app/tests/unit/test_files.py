"""Names, types and ranges of files, and the form that brings them."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from email.message import Message as Email
from typing import Any
from uuid import uuid4

import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from fba_app.files import routes
from fba_app.files.form import FilePart, read_form
from fba_app.files.models import File
from fba_app.files.types import TYPES, clean_name, content_type_of
from fba_app.problems import InvalidError, ProblemError, UnsupportedTypeError

BOUNDARY = "----boundary"
DATA = b"a,b\r\n1,2\r\n--\r\n------boundar"


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("report.csv", "report.csv"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\me\\report.csv", "report.csv"),
        ("a\0b\r\nc\x7f.csv", "abc.csv"),
        ("\u202etxt.csv", "txt.csv"),
        (" .hidden.csv. ", "hidden.csv"),
        ("Müller und Söhne.pdf", "Müller und Söhne.pdf"),
        ("u\u0308ber.csv", "über.csv"),
        ("数据.csv", "数据.csv"),
        ("x" * 300 + ".csv", "x" * 251 + ".csv"),
    ],
)
def test_a_name_is_cleaned(name: str, cleaned: str) -> None:
    assert clean_name(name) == cleaned


@pytest.mark.parametrize("name", ["", "folder/", "..", "\x01\x02", " . "])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        clean_name(name)


@settings(database=None, deadline=None)
@given(st.text())
def test_a_cleaned_name_is_safe(name: str) -> None:
    try:
        cleaned = clean_name(name)
    except InvalidError:
        return
    assert 0 < len(cleaned) <= 255
    assert not set(cleaned) & set("/\\\0\r\n")
    cleaned.encode()


@pytest.mark.parametrize(
    ("name", "declared", "given"),
    [
        ("a.csv", "text/csv", "text/csv"),
        ("a.CSV", "application/vnd.ms-excel", "text/csv"),
        ("a.csv", "application/octet-stream", "text/csv"),
        ("a.jpg", "image/jpeg", "image/jpeg"),
        ("a.b.zip", "", "application/zip"),
    ],
)
def test_a_type_follows_from_the_name(name: str, declared: str, given: str) -> None:
    assert content_type_of(name, declared) == given


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("a.html", "text/html"),
        ("a.csv", "text/html"),
        ("a", "text/csv"),
        ("csv", "text/csv"),
        ("a.svg", "image/svg+xml"),
    ],
)
def test_other_types_are_refused(name: str, declared: str) -> None:
    with pytest.raises(UnsupportedTypeError):
        content_type_of(name, declared)


def test_no_type_is_one_that_a_browser_runs() -> None:
    assert not {"text/html", "image/svg+xml", "text/xml", "application/xhtml+xml"} & {
        types[0] for types in TYPES.values()
    }


@pytest.mark.parametrize(
    "name", ["plain.csv", 'quo"te.csv', "back\\slash.csv", "per%20cent.csv", "Müller.csv", "数据; a=b.csv"]
)
def test_a_name_survives_the_header(name: str) -> None:
    header = routes._disposition(name)
    assert header.isascii()
    email = Email()
    email["Content-Disposition"] = header.replace(header.split("; filename*")[0], "attachment")
    assert email.get_filename() == name
    assert header.startswith("attachment; ")


FILE = File(id=uuid4(), size=100, sha256="f00d")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-9", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        # Several, or what is none, are passed over.
        ("bytes=0-1,5-6", None),
        ("bytes=9-0", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_a_range_is_understood(header: str | None, part: tuple[int, int] | None) -> None:
    assert routes._part(FILE, header, None) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_beyond_the_file_is_refused(header: str) -> None:
    with pytest.raises(routes.RangeError) as raised:
        routes._part(FILE, header, None)
    assert raised.value.headers == {"Content-Range": "bytes */100"}


def test_a_range_of_another_file_is_passed_over() -> None:
    assert routes._part(FILE, "bytes=0-9", '"f00d"') == (0, 10)
    assert routes._part(FILE, "bytes=0-9", '"other"') is None
    assert routes._part(FILE, "bytes=0-9", "Fri, 20 Nov 2026 12:00:00 GMT") is None


def field(
    data: bytes = DATA, disposition: str = 'form-data; name="file"; filename="a.csv"', content_type: str = "text/csv"
) -> bytes:
    headers = f"Content-Disposition: {disposition}\r\nContent-Type: {content_type}\r\n\r\n"
    return f"--{BOUNDARY}\r\n".encode() + headers.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def read(
    body: bytes,
    content_type: str = f"multipart/form-data; boundary={BOUNDARY}",
    sizes: int = 1000,
    disconnects: bool = False,
) -> tuple[FilePart, bytes]:
    messages: list[Message] = [
        {"type": "http.request", "body": body[at : at + sizes], "more_body": True} for at in range(0, len(body), sizes)
    ]
    messages.append({"type": "http.disconnect"} if disconnects else {"type": "http.request", "body": b""})

    async def receive() -> Message:
        return messages.pop(0)

    async def whole() -> tuple[FilePart, bytes]:
        scope: dict[str, Any] = {"type": "http", "headers": [(b"content-type", content_type.encode())]}
        part = await read_form(Request(scope, receive))
        return part, b"".join([chunk async for chunk in part.chunks])

    return asyncio.run(whole())


@pytest.mark.parametrize("sizes", [1, 2, 7, 1000])
def test_a_form_is_read_however_it_is_cut(sizes: int) -> None:
    part, data = read(field() + END, sizes=sizes)
    assert (part.name, part.content_type, data) == ("a.csv", "text/csv", DATA)


@pytest.mark.parametrize("name", ["Müller.csv", "数据.csv"])
def test_a_name_is_utf_8(name: str) -> None:
    part, _ = read(field(disposition=f'form-data; name="file"; filename="{name}"') + END)
    assert part.name == name


def test_a_type_loses_its_parameters() -> None:
    part, _ = read(field(content_type="Text/CSV; charset=utf-8") + END)
    assert part.content_type == "text/csv"


def test_an_empty_file_is_a_file() -> None:
    assert read(field(b"") + END)[1] == b""


NO_FILE = field(disposition='form-data; name="file"')
OTHER = field(disposition='form-data; name="other"')


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"nothing of the kind", 400),
        (field()[:-20], 400),
        (field(), 400),
        (field() + END[:-4], 400),
        (b"--" + BOUNDARY.encode() + b"\r\n: \r\n\r\n\r\n" + END, 400),
        (b"--" + BOUNDARY.encode() + b"\r\n" + b"x" * 100_000, 400),
        (END, 422),
        (b"--" + BOUNDARY.encode() + b"\r\n\r\ndata\r\n" + END, 422),
        (NO_FILE + END, 422),
        (OTHER + field() + END, 422),
        (field() + OTHER + END, 422),
        (field() + field() + END, 422),
    ],
)
@pytest.mark.parametrize("sizes", [1, 1000])
def test_a_broken_form_is_refused(body: bytes, status: int, sizes: int) -> None:
    with pytest.raises(ProblemError) as raised:
        read(body, sizes=sizes)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 1000, 400),
    ],
)
def test_another_content_is_refused(content_type: str, status: int) -> None:
    with pytest.raises(ProblemError) as raised:
        read(field() + END, content_type)
    assert raised.value.status == status


def test_a_client_that_leaves_is_told_from_one_that_is_done() -> None:
    with pytest.raises(ProblemError, match="breaks off"):
        read(field() + END[:-8], disconnects=True)


PIECES: Sequence[bytes] = (
    *(field(), END, NO_FILE, OTHER, b"--", b"\r\n", b"\0", b"\xff", b":", b"Content-Disposition: form-data; "),
    *(f"--{BOUNDARY}".encode(), b'name="file"; ', b'filename="', b"Content-Type: \xff", b"\r\n\r\n", b"x" * 5000),
)


@settings(database=None, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=12), st.integers(1, 300))
def test_whatever_comes_is_a_form_or_a_problem(pieces: Iterable[bytes], sizes: int) -> None:
    with suppress(ProblemError):
        read(b"".join(pieces), sizes=sizes)


@settings(database=None, deadline=None)
@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])))
def test_whatever_boundary_is_declared_is_one_or_a_problem(boundary: str) -> None:
    with suppress(ProblemError):
        read(field() + END, f"multipart/form-data; boundary={boundary}")
