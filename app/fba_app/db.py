"""PostgreSQL: the engines and the tables."""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import URL, DateTime, Engine, NullPool, String, create_engine, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fba_app.settings import Settings, get_settings


class Base(DeclarativeBase):
    """What every table derives from."""


class Heartbeat(Base):
    """When a named source was last seen alive."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    beat_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def url(settings: Settings) -> URL:
    """The database's address; psycopg 3 serves both kinds of engine."""
    tls = {"sslmode": "verify-full", "sslrootcert": str(settings.tls_ca_file)} if settings.tls_ca_file else {}
    return URL.create(
        "postgresql+psycopg",
        username=settings.db_user,
        password=settings.db_password.get_secret_value(),
        host=settings.db_host,
        port=settings.db_port,
        database=settings.db_database,
        query=tls,
    )


# Seconds. The system's keepalive would take two hours to notice a host that vanished.
CONNECT_ARGS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


@lru_cache
def async_engine() -> AsyncEngine:
    """The server's engine; connects when first used."""
    return create_async_engine(url(get_settings()), connect_args=CONNECT_ARGS, pool_pre_ping=True)


@lru_cache
def engine() -> Engine:
    """The engine of tasks and migrations.

    Without a pool: a prefork worker must not share a connection with its children, nor a thousand greenlets one each.
    """
    return create_engine(url(get_settings()), connect_args=CONNECT_ARGS, poolclass=NullPool)


def beat(name: str) -> None:
    """Set the heartbeat of `name` to the database's present time."""
    now = {"beat_at": func.now()}
    statement = insert(Heartbeat).values(name=name, **now).on_conflict_do_update(index_elements=["name"], set_=now)
    with engine().begin() as connection:
        connection.execute(statement)
