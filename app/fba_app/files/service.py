"""What can be done with files, by users and by tasks.

The bytes are stored before the row and forgotten after it: a crash in between leaves bytes without a row, which the
cleanup finds, and never a row without bytes.
"""

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, Select, String, cast, delete, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Session

from fba_app import db, paging
from fba_app.audit.record import record
from fba_app.files.models import File, Purpose
from fba_app.files.storage import ObjectMissingError, StorageUnavailableError, get_storage
from fba_app.files.types import clean_name, content_type_of
from fba_app.problems import ConflictError, ForbiddenError, InvalidError, NotFoundError, TooLargeError, UnavailableError
from fba_app.schedules.models import Schedule
from fba_app.settings import get_settings
from fba_app.tasks.context import TaskContext
from fba_app.tasks.models import FINAL, Task
from fba_app.users.principal import Permission, Principal

BATCH = 500
"""Files that the cleanup takes at a time."""

ORPHAN_AGE = timedelta(days=1)
"""Bytes without a row may be of an upload or a task that still runs, but not for so long."""

UUID_PATTERN = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

# Followed by a number where a crash left a file unfinished. Whatever else is there is not ours.
KEY = re.compile(r"([0-9a-f]{32})(#\d+)?")

logger = logging.getLogger(__name__)


class _Meter:
    """Learns of a file what its record says, while it passes."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._hash = hashlib.sha256()
        self.size = 0

    def count(self, chunk: bytes) -> bytes:
        self.size += len(chunk)
        if self._limit is not None and self.size > self._limit:
            raise TooLargeError(f"A file may have {self._limit} bytes at most.")
        self._hash.update(chunk)
        return chunk

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def available() -> Iterator[None]:
    """Turn the storage's failures into answers.

    Raises:
        UnavailableError: the storage failed.
    """
    try:
        yield
    except StorageUnavailableError as error:
        logger.warning("the file storage is unavailable: %s", error)
        raise UnavailableError("file storage") from error


async def save_upload(
    session: AsyncSession, user: Principal, name: str, content_type: str, chunks: AsyncIterator[bytes], limit: int
) -> File:
    """Store what a user sends, of at most `limit` bytes, and commit.

    Raises:
        ConflictError, InvalidError, UnsupportedTypeError, TooLargeError, UnavailableError: nothing was stored.
    """
    name = clean_name(name)
    content_type = content_type_of(name, content_type)
    used = await session.scalar(select(func.coalesce(func.sum(File.size), 0)).where(File.owner_id == user.id))
    quota = get_settings().user_quota
    if (used or 0) >= quota:
        raise ConflictError(f"Your files have {used} bytes together, of {quota}. Delete some first.")
    # An upload takes as long as the client likes: no connection waits for it.
    await session.rollback()
    identity = uuid4()
    meter = _Meter(limit)
    with available():
        await get_storage().put_async(identity.hex, (meter.count(chunk) async for chunk in chunks))
    file = File(
        id=identity,
        name=name,
        content_type=content_type,
        size=meter.size,
        sha256=meter.sha256,
        purpose=Purpose.UPLOAD,
        owner_id=user.id,
    )
    session.add(file)
    record(session, user, "file.upload", file.id, name=file.name, size=file.size)
    # When this fails the bytes stay for the cleanup: the row may be there for all that we know.
    await session.commit()
    return file


async def get_file(session: AsyncSession, user: Principal, file_id: UUID) -> File:
    """Return a file that the user may see.

    Raises:
        NotFoundError: there is none.
    """
    file = await session.get(File, file_id)
    if file is None or not (file.owner_id == user.id or user.may(Permission.FILES_MANAGE)):
        raise NotFoundError(f"There is no file {file_id}.")
    return file


async def may_use(session: AsyncSession, user: Principal, file_id: UUID, location: Sequence[str | int]) -> None:
    """Return if the user may name this file in a task's arguments, at this place of the request.

    Raises:
        InvalidError: there is no such file, or not for this user.
    """
    try:
        await get_file(session, user, file_id)
    except NotFoundError as error:
        raise InvalidError(error.detail, location) from None


async def list_files(
    session: AsyncSession, user: Principal, *, everyone: bool, purpose: Purpose | None, limit: int, cursor: str | None
) -> tuple[list[File], str | None]:
    """Return a page of the user's or of all files, the newest first, and the next cursor.

    Raises:
        ForbiddenError: the user may not see all.
    """
    query = select(File)
    if not everyone:
        query = query.where(File.owner_id == user.id)
    elif not user.may(Permission.FILES_MANAGE):
        raise ForbiddenError(f"This needs the permission {Permission.FILES_MANAGE}.")
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return await paging.page(session, query, File, limit, cursor)


async def delete_file(session: AsyncSession, user: Principal, file_id: UUID) -> None:
    """Delete a file, and commit.

    Raises:
        NotFoundError: there is none that the user may see.
    """
    file = await get_file(session, user, file_id)
    if await session.scalar(delete(File).where(File.id == file_id).returning(File.id)) is None:
        raise NotFoundError(f"There is no file {file_id}.")
    record(session, user, "file.delete", file.id, name=file.name, size=file.size)
    await session.commit()
    try:
        await get_storage().delete_async(file.key)
    except (StorageUnavailableError, SQLAlchemyError) as error:
        logger.warning("the bytes of file %s are left to the cleanup: %s", file.id, error)


def open_file(session: Session, file_id: UUID) -> File:
    """Return a file for a task, which reads it with `get_storage().get(file.key)`.

    Raises:
        ObjectMissingError: it was deleted.
    """
    file = session.get(File, file_id)
    if file is None:
        raise ObjectMissingError(f"file {file_id}")
    return file


def store_file(context: TaskContext, name: str, content_type: str, purpose: str, chunks: Iterable[bytes]) -> File:
    """Store what a task made; its record appears when the task succeeds.

    Raises:
        StorageUnavailableError: nothing was stored.
    """
    name = clean_name(name)
    identity = uuid4()
    meter = _Meter()
    get_storage().put(identity.hex, map(meter.count, chunks))
    file = File(
        id=identity,
        name=name,
        content_type=content_type,
        size=meter.size,
        sha256=meter.sha256,
        purpose=Purpose(purpose),
        owner_id=context.submitted_by,
        task_id=context.id,
    )

    def insert(session: Session) -> None:
        # Asked again: the user may have been deleted in the meantime.
        file.owner_id = session.scalar(select(Task.submitted_by).where(Task.id == context.id))
        session.add(file)

    context.on_success.append(insert)
    return file


def delete_expired() -> int:
    """Delete the files that are older than the settings allow, and bytes that belong to no file; return how many."""
    return _delete_old_files() + _delete_orphans()


def _delete_old_files() -> int:
    before = datetime.now(UTC) - timedelta(days=get_settings().file_retention_days)
    old = (
        select(File.id)
        .where(
            File.created_at < before,
            cast(File.id, String).not_in(_named_in(Task.arguments).where(Task.state.not_in(FINAL))),
            cast(File.id, String).not_in(_named_in(Schedule.arguments)),
        )
        .limit(BATCH)
    )
    count = 0
    while True:
        with db.session() as session, session.begin():
            deleted = session.scalars(delete(File).where(File.id.in_(old)).returning(File.id)).all()
        if not deleted:
            return count
        for identity in deleted:
            get_storage().delete(identity.hex)
        count += len(deleted)


def _named_in(arguments: InstrumentedAttribute[Any]) -> Select[Any]:
    """Select all that looks like an identifier, at whatever depth."""
    return select(func.regexp_matches(cast(arguments, String), UUID_PATTERN, "g", type_=ARRAY(String))[1])


def _delete_orphans() -> int:
    keys = get_storage().keys(datetime.now(UTC) - ORPHAN_AGE)
    ours = ((key, UUID(match[1])) for key in keys if (match := KEY.fullmatch(key)))
    count = 0
    while batch := dict(islice(ours, BATCH)):
        with db.session() as session:
            known = set(session.scalars(select(File.id).where(File.id.in_(batch.values()))))
        orphans = [key for key, identity in batch.items() if identity not in known]
        for key in orphans:
            get_storage().delete(key)
        count += len(orphans)
    return count
