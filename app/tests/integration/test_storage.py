"""The three storages keep one contract, in both of their halves."""

import asyncio
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import uvloop
from moto.server import ThreadedMotoServer
from sqlalchemy import func, select, update

from fba_app import db
from fba_app.files.models import StorageChunk
from fba_app.files.storage import ObjectMissingError, Storage, StorageUnavailableError
from fba_app.files.storage.objects import PART, FolderStorage, bucket
from fba_app.files.storage.postgres import CHUNK, PostgresStorage
from fba_app.settings import Settings, get_settings

Result = TypeVar("Result")


def pattern(size: int) -> bytes:
    """Bytes in which every place looks different."""
    return b"".join(number.to_bytes(4) for number in range(size // 4 + 1))[:size]


# More than two of both backends' pieces, and no multiple of either.
LONG = pattern(2 * PART + CHUNK // 2 + 3)


class Broken(Exception):  # noqa: N818
    """What the source of some bytes raises."""


def pieces(data: bytes, *, breaks: bool = False) -> Iterator[bytes]:
    for at in range(0, len(data), 300_007):
        yield data[at : at + 300_007]
    if breaks:
        raise Broken


def run(work: Coroutine[Any, Any, Result]) -> Result:
    async def alone() -> Result:
        try:
            return await work
        finally:
            # The next test has another event loop.
            await db.async_engine().dispose()

    return uvloop.run(alone())


class Half:
    """One half of a storage, by the names of the synchronous one."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def put(self, key: str, data: bytes, *, breaks: bool = False) -> None:
        self.storage.put(key, pieces(data, breaks=breaks))

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return b"".join(self.storage.get(key, start, end))

    def delete(self, key: str) -> None:
        self.storage.delete(key)


class AsyncHalf(Half):
    """The other one."""

    def put(self, key: str, data: bytes, *, breaks: bool = False) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for piece in pieces(data, breaks=breaks):
                yield piece

        run(self.storage.put_async(key, chunks()))

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in self.storage.get_async(key, start, end)])

        return run(read())

    def delete(self, key: str) -> None:
        run(self.storage.delete_async(key))


def s3(endpoint: str, **settings: Any) -> Storage:
    values = {
        "storage_backend": "s3",
        "s3_bucket": "files",
        "s3_prefix": "some/where",
        "s3_endpoint": endpoint,
        "s3_access_key_id": "someone",
        "s3_secret_access_key": "something",
    }
    return bucket(Settings.model_validate({**get_settings().model_dump(), **values, **settings}))


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/files", method="PUT")):  # noqa: S310
        pass
    yield endpoint
    server.stop()


@pytest.fixture(params=["volume", "postgres", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "volume":
        return FolderStorage(tmp_path / "made" / "on demand")
    if request.param == "postgres":
        return PostgresStorage()
    return s3(request.getfixturevalue("s3_endpoint"))


@pytest.fixture(params=[Half, AsyncHalf], ids=["sync", "async"])
def half(request: pytest.FixtureRequest, storage: Storage) -> Half:
    half: Half = request.param(storage)
    return half


@pytest.fixture
def key() -> str:
    return uuid4().hex


def stored(storage: Storage) -> list[str]:
    return list(storage.keys(datetime.now(UTC) + timedelta(hours=1)))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, PART, len(LONG)])
def test_what_is_stored_comes_back(half: Half, key: str, size: int) -> None:
    half.put(key, LONG[:size])
    assert half.get(key) == LONG[:size]
    half.delete(key)
    with pytest.raises(ObjectMissingError):
        half.get(key)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (5, 5),
        (CHUNK - 1, CHUNK + 1),
        (CHUNK, 2 * CHUNK),
        (PART - 1, PART + 1),
        (CHUNK + 7, None),
        (len(LONG) - 1, None),
        (len(LONG) - 5, len(LONG) + 100),
        (len(LONG), None),
        (len(LONG) + 10, len(LONG) + 20),
    ],
)
def test_a_range_is_what_a_slice_is(half: Half, start: int, end: int | None) -> None:
    key = uuid4().hex
    half.put(key, LONG)
    assert half.get(key, start, end) == LONG[start:end]
    half.delete(key)


def test_what_is_missing_is_told_and_can_be_deleted(half: Half, key: str) -> None:
    half.delete(key)
    with pytest.raises(ObjectMissingError):
        half.get(key)
    with pytest.raises(ObjectMissingError):
        half.get(key, 10, 20)


@pytest.mark.parametrize("size", [0, 10, len(LONG)])
def test_what_breaks_off_is_not_there_at_all(half: Half, key: str, size: int) -> None:
    with pytest.raises(Broken):
        half.put(key, LONG[:size], breaks=True)
    with pytest.raises(ObjectMissingError):
        half.get(key)
    assert key not in stored(half.storage)


def test_keys_are_listed_by_age(storage: Storage, key: str) -> None:
    storage.put(key, [b"some"])
    assert key in stored(storage)
    assert key not in list(storage.keys(datetime.now(UTC) - timedelta(hours=1)))
    storage.delete(key)
    assert key not in stored(storage)


def test_all_keys_are_listed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fba_app.files.storage.postgres.KEYS_AT_ONCE", 2)
    keys = {uuid4().hex for _ in range(5)}
    for key in keys:
        storage.put(key, [b"some"])
    listed = stored(storage)
    assert keys <= set(listed)
    assert len(listed) == len(set(listed))
    for key in keys:
        storage.delete(key)


def test_a_cancelled_upload_is_not_there(storage: Storage, key: str) -> None:
    async def upload() -> None:
        waiting = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield LONG[: 3 * CHUNK]
            waiting.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(storage.put_async(key, chunks()))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(upload())
    with pytest.raises(ObjectMissingError):
        list(storage.get(key))


def test_files_can_be_read_by_nginx_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = tmp_path / "upload"
        storage = FolderStorage(folder)
        Half(storage).put("sync", b"some")
        AsyncHalf(storage).put("async", b"some")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"sync": 0o644, "async": 0o644}


def test_what_a_crash_left_in_the_folder_can_be_found_and_deleted(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    (tmp_path / "abc#1").write_bytes(b"some")
    assert stored(storage) == ["abc#1"]
    storage.delete("abc#1")
    assert stored(storage) == []


def test_an_unfinished_object_of_postgres_is_not_there_but_listed(key: str) -> None:
    storage = PostgresStorage()
    storage.put(key, pieces(LONG))
    with db.engine().begin() as connection:
        connection.execute(
            update(StorageChunk).where(StorageChunk.key == key, StorageChunk.number == 0).values(number=99)
        )
    with pytest.raises(ObjectMissingError):
        list(storage.get(key))
    assert key in stored(storage)
    storage.delete(key)


def test_a_range_reads_only_its_chunks(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = PostgresStorage()
    storage.put(key, pieces(LONG))
    with db.session() as session:
        chunks = session.scalar(select(func.count()).where(StorageChunk.key == key))
    assert chunks == len(LONG) // CHUNK + 1
    read: list[object] = []
    original = storage._read

    def counted(query: Any) -> Any:
        read.append(query)
        return original(query)

    monkeypatch.setattr(storage, "_read", counted)
    assert b"".join(storage.get(key, 3 * CHUNK + 1, 5 * CHUNK - 1)) == LONG[3 * CHUNK + 1 : 5 * CHUNK - 1]
    assert len(read) == 1 + 2
    storage.delete(key)


def test_s3_away_is_told_as_such(key: str) -> None:
    storage = s3("http://127.0.0.1:1")
    for ask in (lambda: list(storage.get(key)), lambda: storage.put(key, [b"some"]), lambda: storage.delete(key)):
        with pytest.raises(StorageUnavailableError):
            ask()
    with pytest.raises(StorageUnavailableError):
        AsyncHalf(storage).put(key, LONG)


MEMORY = r"""
import asyncio, re
from pathlib import Path
from fba_app.files.storage.postgres import PostgresStorage

storage = PostgresStorage()
size = 100 * 2**20

def peak():
    # Not getrusage, whose maximum begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024

def chunks(size):
    for number in range(size // 2**16):
        yield number.to_bytes(4) * 2**14

async def achunks(size):
    for chunk in chunks(size):
        yield chunk

async def asynchronous(key, size):
    await storage.put_async(key, achunks(size))
    total = 0
    async for chunk in storage.get_async(key):
        total += len(chunk)
    await storage.delete_async(key)
    return total

def synchronous(key, size):
    storage.put(key, chunks(size))
    total = sum(map(len, storage.get(key)))
    storage.delete(key)
    return total

async def main():
    await asynchronous("warm", 2**20)
    synchronous("warm", 2**20)
    before = peak()
    assert await asynchronous("large", size) == size
    assert synchronous("large", size) == size
    print(peak() - before)

asyncio.run(main())
"""


def python(source: str, *arguments: str) -> str:
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_hundred_megabytes_pass_through_postgres_in_little_memory() -> None:
    assert int(python(MEMORY)) < 40 * 2**20


GREENLETS = """
from gevent import monkey
monkey.patch_all()

import sys, threading
import gevent
from fba_app.files.storage import ObjectMissingError, get_storage

ticks = 0
threads = []

def tick():
    global ticks
    while True:
        gevent.sleep(0.01)
        ticks += 1

def chunks():
    for _ in range(3):
        threads.append(gevent.getcurrent())
        yield b"x"

gevent.spawn(tick)
storage = get_storage()
if sys.argv[1] == "get":
    try:
        list(storage.get("key"))
    except ObjectMissingError:
        print(ticks)
else:
    storage.put("key", chunks())
    assert set(threads) == {gevent.getcurrent()}
    print(b"".join(storage.get("key")).decode(), list(storage.keys(__import__("datetime").datetime.now().astimezone())))
"""


class Slow(BaseHTTPRequestHandler):
    """Storage that takes its time, and has nothing."""

    asked = threading.Event()
    answer = threading.Event()

    def do_HEAD(self) -> None:
        # For longer than the greenlets of the other process need to show whether they run.
        self.answer.wait(0.5)
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def change(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(name.upper(), value)

    return change


def test_other_greenlets_run_while_s3_is_slow(environment: Callable[..., None]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever).start()
        environment(
            storage_backend="s3",
            s3_bucket="files",
            s3_endpoint=f"http://127.0.0.1:{server.server_port}",
            s3_access_key_id="someone",
            s3_secret_access_key="something",
        )
        try:
            assert int(python(GREENLETS, "get")) >= 10
        finally:
            server.shutdown()


def test_a_greenlet_makes_its_own_chunks(environment: Callable[..., None], tmp_path: Path) -> None:
    environment(storage_backend="volume", storage_dir=str(tmp_path))
    assert python(GREENLETS, "put") == "xxx ['key']\n"
