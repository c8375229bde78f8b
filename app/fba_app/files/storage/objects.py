"""Objects in a folder or in S3."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import gevent
import obstore
from gevent import monkey
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from fba_app.files.storage import ObjectMissingError, StorageUnavailableError
from fba_app.settings import ConfigurationError, Settings

PART = 5 * 2**20
"""Bytes of one request to the store; S3 takes no smaller parts."""

PARTS_AT_ONCE = 2

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _call(function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """Call what blocks outside of Python, where no greenlet could give way."""
    if monkey.is_module_patched("socket"):
        result: Result = gevent.get_hub().threadpool.apply(function, args, kwargs)
        return result
    return function(*args, **kwargs)


def _unavailable(error: Exception) -> StorageUnavailableError:
    # What follows is for whoever knows obstore's source.
    return StorageUnavailableError(str(error).partition("\n")[0])


@contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ObjectMissingError(key) from None
    except BaseError as error:
        raise _unavailable(error) from error


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise _unavailable(error) from error


def _parts(start: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, PART):
        yield at, min(at + PART, end)


class ObjectStorage:
    """What a folder and S3 have in common.

    Reads are one request for each part: a slow reader holds no connection that the store would end.
    """

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store

    async def put_async(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store the chunks as one object."""
        with _writing():
            await self._store.put_async(key, chunks, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)

    async def get_async(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to and without `end`."""
        with _reading(key):
            size = (await self._store.head_async(key))["size"]
            for first, last in _parts(start, size if end is None else min(end, size)):
                yield bytes(await self._store.get_range_async(key, start=first, end=last))

    async def delete_async(self, key: str) -> None:
        """Forget the object, if there is one."""
        try:
            with _reading(key):
                await self._store.delete_async(key)
        except ObjectMissingError:
            pass

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        """Store the chunks as one object."""
        # Not `store.put`, which would call the chunks' iterator in a thread that greenlets know nothing of.
        writer = obstore.open_writer(self._store, key, buffer_size=PART, max_concurrency=PARTS_AT_ONCE)
        try:
            for chunk in chunks:
                with _writing():
                    _call(writer.write, chunk)
            with _writing():
                _call(writer.close)
        finally:
            # Dropped without having been closed, it removes what it wrote; the error's trace would keep it.
            del writer

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Give the bytes from `start` up to and without `end`."""
        with _reading(key):
            size = _call(self._store.head, key)["size"]
            for first, last in _parts(start, size if end is None else min(end, size)):
                yield bytes(_call(self._store.get_range, key, start=first, end=last))

    def delete(self, key: str) -> None:
        """Forget the object, if there is one."""
        try:
            with _reading(key):
                _call(self._store.delete, key)
        except ObjectMissingError:
            pass

    def keys(self, before: datetime) -> Iterator[str]:
        """Give the keys of what was written before that time."""
        pages = iter(self._store.list(chunk_size=1000))
        with _reading(""):
            while page := _call(next, pages, None):
                yield from (each["path"] for each in page if each["last_modified"] < before)


class FolderStorage(ObjectStorage):
    """Each object a file in one folder, which nginx may serve as well."""

    def __init__(self, folder: Path) -> None:
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(0o755)
            super().__init__(LocalStore(folder.absolute()))
        except OSError as error:
            raise ConfigurationError(f"STORAGE_DIR: {error.strerror}: {folder}") from None
        self._folder = folder.absolute()

    async def put_async(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store the chunks as one object."""
        await super().put_async(key, chunks)
        with _writing():
            await asyncio.to_thread(self._settle, key)

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        """Store the chunks as one object."""
        super().put(key, chunks)
        with _writing():
            _call(self._settle, key)

    def _settle(self, key: str) -> None:
        """Make the file readable for nginx, whatever the umask, and safe from a crash of the host."""
        for path in (self._folder / key, self._folder):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if path is not self._folder:
                    os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def keys(self, before: datetime) -> Iterator[str]:
        """Give the keys of what was written before that time, and the names of what a crash left unfinished."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < before.timestamp():
                    yield entry.name

    def delete(self, key: str) -> None:
        """Forget the object, if there is one."""
        (self._folder / key).unlink(missing_ok=True)


def bucket(settings: Settings) -> ObjectStorage:
    """The storage in S3 that the settings name.

    What a crash leaves of a large upload is not listed there: the bucket needs a lifecycle rule that ends incomplete
    multipart uploads.
    """
    # The settings have seen to it.
    assert settings.s3_bucket and settings.s3_access_key_id and settings.s3_secret_access_key  # noqa: S101, PT018
    endpoint = settings.s3_endpoint
    return ObjectStorage(
        S3Store(
            settings.s3_bucket,
            prefix=settings.s3_prefix or None,
            config={
                "region": settings.s3_region,
                "access_key_id": settings.s3_access_key_id.get_secret_value(),
                "secret_access_key": settings.s3_secret_access_key.get_secret_value(),
                **({"endpoint": endpoint} if endpoint else {}),
            },
            client_options={"allow_http": bool(endpoint and endpoint.startswith("http://"))},
            # The default would let a request wait for three minutes.
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
        )
    )
