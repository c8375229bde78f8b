"""Objects in PostgreSQL, in chunks.

Each chunk is written and read in a transaction of its own, so that a slow client holds no connection. The first one is
written last: an object is there once that is.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Delete, Insert, Row, Select, delete, exists, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from fba_app import db
from fba_app.files.models import StorageChunk
from fba_app.files.storage import ObjectMissingError

CHUNK = 2**20
"""Bytes."""

KEYS_AT_ONCE = 1000


class _Cutter:
    """Makes pieces of any length into rows, in the order in which they are to be written."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._buffer = bytearray()
        self._number = 0
        self._first: bytes | None = None

    def _cut(self) -> Iterator[Insert]:
        data = bytes(self._buffer[:CHUNK])
        del self._buffer[:CHUNK]
        if self._first is None:
            self._first = data
        else:
            yield self._insert(self._number, data)
        self._number += 1

    def _insert(self, number: int, data: bytes) -> Insert:
        return insert(StorageChunk).values(key=self._key, number=number, data=data)

    def feed(self, piece: bytes) -> Iterator[Insert]:
        self._buffer += piece
        while len(self._buffer) >= CHUNK:
            yield from self._cut()

    def finish(self) -> Iterator[Insert]:
        if self._buffer:
            yield from self._cut()
        yield self._insert(0, self._first or b"")


def _delete(key: str) -> Delete:
    return delete(StorageChunk).where(StorageChunk.key == key)


def _last_chunk(key: str) -> Select[Any]:
    is_complete = exists().where(StorageChunk.key == key, StorageChunk.number == 0)
    return (
        select(StorageChunk.number, func.octet_length(StorageChunk.data).label("length"))
        .where(StorageChunk.key == key, is_complete)
        .order_by(StorageChunk.number.desc())
        .limit(1)
    )


def _ranges(key: str, last: Row[Any] | None, start: int, end: int | None) -> Iterator[tuple[Select[Any], slice]]:
    """Give a query for each chunk that has some of the bytes, and which of the chunk's those are."""
    if last is None:
        raise ObjectMissingError(key)
    size = last.number * CHUNK + last.length
    end = size if end is None else min(end, size)
    for at in range(start - start % CHUNK, end, CHUNK):
        query = select(StorageChunk.data).where(StorageChunk.key == key, StorageChunk.number == at // CHUNK)
        yield query, slice(max(start - at, 0), end - at)


class PostgresStorage:
    """For deployments of several hosts that have no other storage in common; a backup of the database has it all."""

    async def put_async(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store the chunks as one object."""
        cutter = _Cutter(key)
        try:
            async for piece in chunks:
                for row in cutter.feed(piece):
                    await self._write_async(row)
            for row in cutter.finish():
                await self._write_async(row)
        except BaseException:
            with suppress(SQLAlchemyError):
                await self.delete_async(key)
            raise

    async def _write_async(self, statement: Insert | Delete) -> None:
        async with db.async_engine().begin() as connection:
            await connection.execute(statement)

    async def get_async(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to and without `end`."""
        for query, part in _ranges(key, await self._read_async(_last_chunk(key)), start, end):
            row = await self._read_async(query)
            if row is None:
                raise ObjectMissingError(key)
            yield row.data[part]

    async def _read_async(self, query: Select[Any]) -> Row[Any] | None:
        async with db.async_engine().connect() as connection:
            row: Row[Any] | None = (await connection.execute(query)).one_or_none()
            return row

    async def delete_async(self, key: str) -> None:
        """Forget the object, if there is one."""
        await self._write_async(_delete(key))

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        """Store the chunks as one object."""
        cutter = _Cutter(key)
        try:
            for piece in chunks:
                for row in cutter.feed(piece):
                    self._write(row)
            for row in cutter.finish():
                self._write(row)
        except BaseException:
            with suppress(SQLAlchemyError):
                self.delete(key)
            raise

    def _write(self, statement: Insert | Delete) -> None:
        with db.engine().begin() as connection:
            connection.execute(statement)

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Give the bytes from `start` up to and without `end`."""
        for query, part in _ranges(key, self._read(_last_chunk(key)), start, end):
            row = self._read(query)
            if row is None:
                raise ObjectMissingError(key)
            yield row.data[part]

    def _read(self, query: Select[Any]) -> Row[Any] | None:
        with db.engine().connect() as connection:
            return connection.execute(query).one_or_none()

    def delete(self, key: str) -> None:
        """Forget the object, if there is one."""
        self._write(_delete(key))

    def keys(self, before: datetime) -> Iterator[str]:
        """Give the keys of what was written before that time, also of what a crash left unfinished."""
        last = ""
        while True:
            query = (
                select(StorageChunk.key)
                .where(StorageChunk.created_at < before, StorageChunk.key > last)
                .distinct()
                .order_by(StorageChunk.key)
                .limit(KEYS_AT_ONCE)
            )
            with db.engine().connect() as connection:
                page = connection.scalars(query).all()
            if not page:
                return
            yield from page
            last = page[-1]
