"""What every connection shows, and how it notices that the other side is gone."""

import os
import socket
import ssl
import threading
from asyncio import Runner
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from amqp.transport import _AbstractTransport
from kombu import Connection
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from fba_app import cache, db
from fba_app.celery import app as celery_app
from fba_app.health import routes as health
from fba_app.keepalive import SOCKET_OPTIONS
from fba_app.settings import Settings, get_settings
from fba_app.tasks import relay
from tests.unit.test_celery import celery_with

HOST = "127.0.0.1"
CONFIRMED = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 10_000,
}

Attempt = Callable[[], None]


class Server:
    """Takes connections, notes whose certificate each shows if it does TLS, and hangs up."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[bytes | str] = []
        self._tls = tls
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    self._serve(connection)
                except OSError as error:
                    self.seen.append(f"{error}")

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is None:
            # Until the client has connected and said so.
            connection.recv(8)
            return
        # A TLS record begins with 22; what else comes is PostgreSQL's question whether TLS is spoken here.
        if connection.recv(1, socket.MSG_PEEK) != b"\x16":
            connection.recv(8)
            connection.sendall(b"S")
        with self._tls.wrap_socket(connection, server_side=True) as secure:
            self.seen.append(secure.getpeercert(binary_form=True) or "none")


class Files:
    """An authority, and the files of a certificate that it renews."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca, self.certificate, self.key = (folder / name for name in ("ca.crt", "app.crt", "app.key"))
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.key.touch(mode=0o600)
        self.renew()

    def renew(self) -> None:
        issued = self.authority.issue_cert("app.example")
        self.certificate.write_bytes(issued.cert_chain_pems[0].bytes())
        self.key.write_bytes(issued.private_key_pem.bytes())

    @property
    def present(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def server(files: Files) -> Iterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files.authority.issue_cert(HOST).configure_cert(context)
    files.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = Server(context)
    yield server
    server.close()


@pytest.fixture
def settings(files: Files, server: Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    ports = dict.fromkeys(("db_port", "redis_port", "rabbitmq_port"), server.port)
    tls = {"tls_ca_file": files.ca, "tls_cert_file": files.certificate, "tls_key_file": files.key}
    settings = get_settings().model_copy(update={**ports, **tls})
    monkeypatch.setattr(cache, "get_settings", lambda: settings)
    return settings


def celery_of(settings: Settings) -> Any:
    return celery_with(**settings.model_dump())


def postgresql(settings: Settings) -> Iterator[Attempt]:
    engine = create_engine(db.url(settings), **db.ENGINE_OPTIONS)

    def attempt() -> None:
        with pytest.raises(db.AWAY):
            engine.connect()

    yield attempt


def postgresql_async(settings: Settings) -> Iterator[Attempt]:
    engine = create_async_engine(db.url(settings), **db.ENGINE_OPTIONS)

    async def connect() -> None:
        with pytest.raises(db.AWAY):
            await engine.connect()

    with Runner() as runner:
        yield lambda: runner.run(connect())


def _ping(client: Redis) -> Attempt:
    def attempt() -> None:
        with pytest.raises(RedisConnectionError):
            client.ping()

    return attempt


def redis(_: Settings) -> Iterator[Attempt]:
    client = cache._sync_client.__wrapped__(os.getpid())
    yield _ping(client)


def redis_async(_: Settings) -> Iterator[Attempt]:
    client: AsyncRedis = cache.client.__wrapped__()

    async def ping() -> None:
        with pytest.raises(RedisConnectionError):
            await client.ping()

    with Runner() as runner:
        yield lambda: runner.run(ping())
        runner.run(client.aclose())


def results(settings: Settings) -> Iterator[Attempt]:
    client = celery_of(settings).backend.client
    client.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
    yield _ping(client)


def rabbitmq(settings: Settings) -> Iterator[Attempt]:
    connection: Connection = celery_of(settings).connection_for_write(connect_timeout=2)

    def attempt() -> None:
        with pytest.raises(relay.BROKER_ERRORS):
            connection.ensure_connection(max_retries=1, interval_start=0)

    yield attempt


@pytest.mark.parametrize("service", [postgresql, postgresql_async, redis, redis_async, results, rabbitmq])
def test_each_new_connection_shows_the_certificate_that_is_now_in_the_file(
    service: Callable[[Settings], Iterator[Attempt]], settings: Settings, files: Files, server: Server
) -> None:
    attempts = service(settings)
    attempt = next(attempts)
    for _ in range(2):
        server.seen.clear()
        attempt()
        assert set(server.seen) == {files.present}
        files.renew()
    assert next(attempts, None) is None


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, int]]:
    """The options of each socket that py-amqp has connected, as the system tells them."""
    options: list[dict[int, int]] = []
    set_options = _AbstractTransport._set_socket_options

    def note(transport: Any, settings: Any) -> None:
        set_options(transport, settings)
        assert transport.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options.append({name: transport.sock.getsockopt(socket.IPPROTO_TCP, name) for name in CONFIRMED})

    monkeypatch.setattr(_AbstractTransport, "_set_socket_options", note)
    return options


@pytest.mark.parametrize("who", ["consumer", "producer", "relay", "health"])
def test_a_broker_that_vanishes_is_noticed(
    who: str, noted: list[dict[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    celery = celery_with(rabbitmq_port=server.port)
    monkeypatch.setattr(relay, "celery_app", celery)
    monkeypatch.setattr(health, "celery_app", celery)

    def ensure(connection: Connection) -> None:
        connection.ensure_connection(max_retries=1, interval_start=0)

    connect: dict[str, Callable[[], Any]] = {
        "consumer": lambda: ensure(celery.connection_for_read()),
        "producer": lambda: ensure(celery.pool.acquire()),
        "relay": relay.Relay()._connected,
        "health": health._open_channel,
    }
    try:
        with pytest.raises(relay.BROKER_ERRORS):
            connect[who]()
    finally:
        server.close()
    assert noted
    assert all(options == CONFIRMED for options in noted)


def test_the_relay_adds_its_patience_to_the_options_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "ensure_connection", lambda *_, **__: None)
    options = relay.Relay()._connected().transport_options
    assert options["socket_settings"] == SOCKET_OPTIONS == CONFIRMED
    # It asks for the broker's word itself, on many messages at a time.
    assert options["confirm_publish"] is False
    assert options["read_timeout"] == options["write_timeout"] == relay.PATIENCE


def test_a_postgresql_that_vanishes_is_noticed() -> None:
    options = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 10_000}
    assert db.ENGINE_OPTIONS["connect_args"] == {"connect_timeout": 10, "prepare_threshold": None} | options


def test_a_redis_that_vanishes_is_noticed() -> None:
    clients = cache.client.__wrapped__(), cache._sync_client.__wrapped__(os.getpid()), celery_app.backend.client
    for client in clients:
        options = client.connection_pool.connection_kwargs
        assert options["socket_keepalive"] is True
        assert options["socket_keepalive_options"] == CONFIRMED
