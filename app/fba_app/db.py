"""PostgreSQL: the engines, the sessions, and what every table derives from."""

import os
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import (
    URL,
    ColumnElement,
    DateTime,
    Engine,
    MetaData,
    Select,
    Text,
    Uuid,
    any_,
    create_engine,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Session as SyncSession

from fba_app.keepalive import LIBPQ_OPTIONS, USER_TIMEOUT
from fba_app.settings import Settings, get_settings


class Base(DeclarativeBase):
    """What every table derives from."""

    metadata = MetaData(
        # Names that do not depend on who makes them, so that a migration can name what another one made.
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        str: Text(),
        UUID: Uuid(),
    }


def url(settings: Settings) -> URL:
    """The database's address; psycopg 3 serves both kinds of engine."""
    # libpq reads the files for each connection.
    files = settings.tls_files("sslrootcert", "sslcert", "sslkey")
    tls = {"sslmode": "verify-full", **files} if files else {}
    return URL.create(
        "postgresql+psycopg",
        username=settings.db_user,
        password=settings.db_password.get_secret_value(),
        host=settings.db_host,
        port=settings.db_port,
        database=settings.db_database,
        query=tls,
    )


AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
"""What SQLAlchemy raises when PostgreSQL is away, or too busy for one more."""

LOCK_TIMEOUT = 2
"""Seconds that a statement of a request waits for a row that somebody else is changing."""

PATIENCE = USER_TIMEOUT // 1000
"""Seconds that a request waits for a connection to be free, and any new one to be made.

As long as one that stands may be without an answer. A host that is busy with images for a moment is slow, not away.
"""

CONNECT_ARGS: dict[str, Any] = {
    "connect_timeout": PATIENCE,
    # A statement that is prepared keeps its plan. That of a table that was empty is kept for the first ten thousands of
    # rows too, which it is wrong for, until PostgreSQL looks at the table again: after a minute or two.
    "prepare_threshold": None,
    **LIBPQ_OPTIONS,
}

ENGINE_OPTIONS: dict[str, Any] = {
    "connect_args": CONNECT_ARGS,
    "pool_pre_ping": True,
    "pool_size": 10,
    # Which would tell the log what requests and tasks are about.
    "hide_parameters": True,
}


def any_of(found: Select[Any]) -> ColumnElement[Any]:
    """Any of the values that a query finds, to compare a column with. The query is made once.

    One in `IN (…)` that locks what it finds can be made for each row anew: that depends on the plan.
    """
    return any_(func.array(found.scalar_subquery()))


def waited_for_a_lock(error: BaseException) -> bool:
    """Tell whether a statement failed because it has waited for `LOCK_TIMEOUT`. PostgreSQL is there then."""
    return isinstance(error, OperationalError) and isinstance(error.orig, LockNotAvailable)


def request_connect_args() -> dict[str, Any]:
    """How the server connects. Requests that waited on and on would have all connections at last."""
    # The argument takes the place of the environment's.
    options = f"{os.environ.get('PGOPTIONS', '')} -c lock_timeout={LOCK_TIMEOUT}s"
    return CONNECT_ARGS | {"options": options}


@lru_cache
def async_engine() -> AsyncEngine:
    """The server's engine; connects when first used."""
    return create_async_engine(
        url(get_settings()),
        max_overflow=10,
        pool_timeout=PATIENCE,
        **ENGINE_OPTIONS | {"connect_args": request_connect_args()},
    )


@lru_cache
def _engine(process: int) -> Engine:
    del process
    return create_engine(
        url(get_settings()),
        max_overflow=0,
        pool_timeout=60,
        **ENGINE_OPTIONS,
    )


def engine() -> Engine:
    """The engine of tasks, beat and migrations.

    One for each process, because the children of a prefork worker must not share their parent's connections. Its few
    connections serve a thousand greenlets, which wait for one another here and not in PostgreSQL.
    """
    return _engine(os.getpid())


def session() -> SyncSession:
    """Open a session for a task. Used as `with db.session() as session, session.begin()`, it commits at the end."""
    return SyncSession(engine(), expire_on_commit=False)
