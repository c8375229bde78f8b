"""Redis: sessions, progress, counters of attempts. Nothing here that may not be lost."""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from redis import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import SSLConnection as AsyncSSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from fba_app.keepalive import SOCKET_OPTIONS
from fba_app.settings import get_settings

BACKOFF = ExponentialBackoff(cap=0.2, base=0.05)
ATTEMPTS = 2
"""Enough to replace a connection that died while it was idle."""


def _options() -> dict[str, Any]:
    settings = get_settings()
    options: dict[str, Any] = {
        "host": settings.redis_host,
        "port": settings.redis_port,
        "db": settings.redis_database,
        "password": settings.redis_password.get_secret_value(),
        # Seconds. Whoever asks waits for the answer: better none soon than one late.
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "socket_keepalive_options": SOCKET_OPTIONS,
        "decode_responses": True,
    }
    if files := settings.tls_files("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        options |= {**files, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return options


class _RereadingConnection(AsyncSSLConnection):
    """Reads the files of TLS at each connect. redis-py's keeps what it read at its first; its synchronous one does not.

    The pool keeps the object when its connection has ended, so it would show a certificate that expired long ago.
    """

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = None
        return super()._connection_arguments()


@lru_cache
def client() -> AsyncRedis:
    """The server's client; connects when first used."""
    pool = AsyncConnectionPool(
        connection_class=_RereadingConnection if get_settings().tls_ca_file else AsyncConnection,
        retry=AsyncRetry(BACKOFF, ATTEMPTS),
        **_options(),
    )
    # Which closes the pool with the client.
    return AsyncRedis.from_pool(pool)


@lru_cache
def _sync_client(process: int) -> Redis:
    del process
    # A pool in which a thousand greenlets wait for one another.
    pool = BlockingConnectionPool(  # type: ignore[no-untyped-call]
        max_connections=8,
        # Seconds, as for an answer
        timeout=2,
        connection_class=SSLConnection if get_settings().tls_ca_file else Connection,
        retry=Retry(BACKOFF, ATTEMPTS),
        **_options(),
    )
    return Redis(connection_pool=pool)


def sync_client() -> Redis:
    """The client of tasks, one for each process; connects when first used."""
    return _sync_client(os.getpid())
