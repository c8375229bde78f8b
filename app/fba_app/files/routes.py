"""`/api/v1/files`, and the same files where links to uploads point to."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field

from fba_app import errors
from fba_app.dependencies import Cursor, Limit, Session
from fba_app.files import service
from fba_app.files.form import FIELD, read_form
from fba_app.files.models import File, Purpose
from fba_app.files.storage import ObjectMissingError, get_storage
from fba_app.files.types import ANY_TYPE, TYPES
from fba_app.problems import NotFoundError, ProblemError
from fba_app.settings import get_settings
from fba_app.types import BigInt, Model, Page
from fba_app.users.access import require
from fba_app.users.principal import Permission, Principal

PREFIX = "/api/v1/files"

# One range, of so few digits that it is quick to read. Anything else is passed over, as RFC 9110 allows.
RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))", re.ASCII)

router = APIRouter(tags=["files"])
User = Annotated[Principal, Depends(require(Permission.FILES_WRITE))]


class FileView(Model):
    """What is known of a file."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "2c1d5d0e-4d6b-4a53-9f39-0d8f3f0e6a55",
                "name": "measurements.csv",
                "content_type": "text/csv",
                "size": 104857600,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "purpose": "upload",
                "owner_id": "3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10",
                "task_id": None,
                "created_at": "2026-11-20T12:00:00Z",
            }
        }
    )

    id: UUID
    name: str
    content_type: str
    size: BigInt = Field(description="Bytes.")
    sha256: str
    purpose: Purpose
    owner_id: UUID | None
    task_id: UUID | None = Field(description="The task that made it.")
    created_at: datetime


class RangeError(ProblemError):
    """The file ends before the bytes that were asked for."""

    status, code = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range_not_satisfiable"


UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                    "additionalProperties": False,
                },
                "encoding": {FIELD: {"contentType": ", ".join(sorted({types[0] for types in TYPES.values()}))}},
            }
        },
    }
}
LOCATION = {"Location": {"description": "The file's own path.", "schema": {"type": "string"}}}


@router.post(
    PREFIX,
    status_code=status.HTTP_201_CREATED,
    summary="Upload a file",
    openapi_extra=UPLOAD,
    responses={201: {"headers": LOCATION}, **errors.responses(400, 401, 403, 409, 413, 415, 422, 503)},
)
async def upload(request: Request, user: User, session: Session, response: Response) -> FileView:
    """Store a file. Its name's ending says what it is, and must be one of those that this takes."""
    part = await read_form(request)
    file = await service.save_upload(
        session, user, part.name, part.content_type, part.chunks, get_settings().upload_max_size
    )
    response.headers["Location"] = f"{PREFIX}/{file.id}"
    return FileView.model_validate(file)


@router.get(PREFIX, summary="List files", responses=errors.responses(401, 403, 422, 503))
async def list_files(
    user: User,
    session: Session,
    purpose: Annotated[Purpose | None, Query(description="Only uploads, or only reports.")] = None,
    everyone: Annotated[bool, Query(description="Also other users' files; needs `files:manage`.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FileView]:
    """Return files, the newest first."""
    files, following = await service.list_files(
        session, user, everyone=everyone, purpose=purpose, limit=limit, cursor=cursor
    )
    return Page(items=[FileView.model_validate(file) for file in files], next=following)


@router.get(f"{PREFIX}/{{file_id}}", summary="See a file", responses=errors.responses(401, 403, 404, 422, 503))
async def get_file(file_id: UUID, user: User, session: Session) -> FileView:
    """Return what is known of a file."""
    return FileView.model_validate(await service.get_file(session, user, file_id))


@router.delete(
    f"{PREFIX}/{{file_id}}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a file",
    responses=errors.responses(401, 403, 404, 422, 503),
)
async def delete_file(file_id: UUID, user: User, session: Session) -> None:
    """Delete a file for good. A task that still needs it will fail."""
    await service.delete_file(session, user, file_id)


def _disposition(name: str) -> str:
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _part(file: File, wanted: str | None, only_if: str | None) -> tuple[int, int] | None:
    """Return from where up to which byte of the file is wanted, or None for all of it."""
    match = RANGE.fullmatch((wanted or "").strip())
    if match is None or only_if not in (None, f'"{file.sha256}"'):
        return None
    first, last, suffix = (None if digits is None else int(digits) for digits in match.groups())
    if first is None:
        start, end = max(file.size - (suffix or 0), 0), file.size
    else:
        start, end = first, file.size if last is None else min(last + 1, file.size)
        if last is not None and last < first:
            return None
    if start >= end:
        raise RangeError(f"The file has {file.size} bytes.", headers={"Content-Range": f"bytes */{file.size}"})
    return start, end


async def _stream(file: File, start: int, end: int) -> AsyncIterator[bytes]:
    """Begin to read, so that a failure can still be answered, and return all chunks."""
    chunks = get_storage().get_async(file.key, start, end)
    with service.available():
        try:
            first = await anext(chunks, b"")
        except ObjectMissingError:
            raise NotFoundError(f"The bytes of file {file.id} are lost.") from None

    async def everything() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return everything()


BINARY = {"schema": {"type": "string", "format": "binary"}}
CONTENT = dict.fromkeys(sorted({ANY_TYPE, *(types[0] for types in TYPES.values())}), BINARY)


@router.get("/static/upload/{file_id}/{name}", include_in_schema=False)
@router.get(
    f"{PREFIX}/{{file_id}}/content",
    summary="Download a file",
    response_class=Response,
    responses={
        200: {"description": "The whole file.", "content": CONTENT},
        206: {"description": "The bytes that were asked for.", "content": CONTENT},
        **errors.responses(401, 403, 404, 416, 422, 503),
    },
)
async def download(
    file_id: UUID,
    user: User,
    session: Session,
    wanted: Annotated[
        str | None, Header(alias="Range", max_length=1000, description="One range of bytes, such as `bytes=0-1023`.")
    ] = None,
    only_if: Annotated[
        str | None, Header(alias="If-Range", max_length=1000, description="The `ETag` that the range is of.")
    ] = None,
) -> Response:
    """Return the file's bytes, or one range of them, always as an attachment."""
    file = await service.get_file(session, user, file_id)
    # Gives the connection back: a download takes as long as the client likes.
    await session.commit()
    settings = get_settings()
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": _disposition(file.name),
        "Content-Type": file.content_type if file.content_type in CONTENT else ANY_TYPE,
        "ETag": f'"{file.sha256}"',
        "X-Content-Type-Options": "nosniff",
    }
    if settings.storage_backend == "volume" and settings.storage_accel_prefix is not None:
        # nginx sends it, and sees to ranges itself.
        prefix = settings.storage_accel_prefix.rstrip("/")
        return Response(headers={**headers, "X-Accel-Redirect": f"{prefix}/{file.key}"})
    part = _part(file, wanted, only_if)
    start, end = part or (0, file.size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    return StreamingResponse(
        await _stream(file, start, end),
        status_code=status.HTTP_200_OK if part is None else status.HTTP_206_PARTIAL_CONTENT,
        headers=headers,
    )
