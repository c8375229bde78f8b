"""Redis: sessions, progress, counters of attempts. Nothing here that may not be lost."""

import os
from functools import lru_cache
from typing import Any

from redis import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

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
        "decode_responses": True,
    }
    if settings.tls_ca_file:
        options |= {"ssl_ca_certs": str(settings.tls_ca_file), "ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return options


@lru_cache
def client() -> AsyncRedis:
    """The server's client; connects when first used."""
    return AsyncRedis(ssl=get_settings().tls_ca_file is not None, retry=AsyncRetry(BACKOFF, ATTEMPTS), **_options())


@lru_cache
def _sync_client(process: int) -> Redis:
    del process
    # A pool in which a thousand greenlets wait for one another.
    pool = BlockingConnectionPool(  # type: ignore[no-untyped-call]
        max_connections=8,
        connection_class=SSLConnection if get_settings().tls_ca_file else Connection,
        retry=Retry(BACKOFF, ATTEMPTS),
        **_options(),
    )
    return Redis(connection_pool=pool)


def sync_client() -> Redis:
    """The client of tasks, one for each process; connects when first used."""
    return _sync_client(os.getpid())
