"""Where the bytes of files are: a folder, PostgreSQL or S3, behind one interface."""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from fba_app.settings import Settings, get_settings


class ObjectMissingError(Exception):
    """Nothing is stored under the key."""


class StorageUnavailableError(Exception):
    """The storage did not do what it was asked for; it may later."""


class Storage(Protocol):
    """Byte strings by key. The server uses the asynchronous half, tasks the other.

    A key is used for one object only, ever. All methods raise StorageUnavailableError, or the database's own errors.
    """

    async def put_async(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store the chunks as one object, in bounded memory. An object that breaks off is not there at all."""

    def get_async(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to and without `end`, in chunks. Raises ObjectMissingError."""

    async def delete_async(self, key: str) -> None:
        """Forget the object, if there is one."""

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        """Store as `put_async` does."""

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Give as `get_async` does."""

    def delete(self, key: str) -> None:
        """Forget as `delete_async` does."""

    def keys(self, before: datetime) -> Iterator[str]:
        """Give the keys of what was written before that time, also of what broke off and could not be removed."""


def get_storage() -> Storage:
    """The storage that the settings name.

    A process that has used it must not fork any more: the threads of its network code do not come along.

    Raises:
        ConfigurationError: a setting that this storage needs is missing or wrong.
    """
    return _storage(get_settings())


@lru_cache
def _storage(settings: Settings) -> Storage:
    # A process loads only the libraries of the storage that it uses.
    if settings.storage_backend == "postgres":
        from fba_app.files.storage.postgres import PostgresStorage

        return PostgresStorage()

    from fba_app.files.storage.objects import FolderStorage, bucket

    if settings.storage_backend == "volume":
        return FolderStorage(settings.storage_dir)
    return bucket(settings)
