"""Redis, as the server sees it."""

from functools import lru_cache

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from fba_app.settings import get_settings


@lru_cache
def client() -> Redis:
    """The server's client; connects when first used. Answers or fails within seconds, as a request waits for it."""
    settings = get_settings()
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        db=settings.redis_database,
        password=settings.redis_password.get_secret_value(),
        socket_timeout=2,
        socket_connect_timeout=2,
        # Enough to replace a connection that died while it was idle.
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
        ssl=settings.tls_ca_file is not None,
        ssl_ca_certs=str(settings.tls_ca_file) if settings.tls_ca_file else None,
        ssl_cert_reqs="required",
        ssl_check_hostname=True,
    )
