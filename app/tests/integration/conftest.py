"""PostgreSQL, Redis and RabbitMQ as the settings name them, with a schema and a database number for these tests alone.

Run by `make test-app` in the network of a running stack, or by hand with `FBA_ENV_FILE` set.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

SCHEMA = f"test_{secrets.token_hex(4)}"
# The driver reads it at each connection: so all that the application makes and finds is in the schema.
os.environ["PGOPTIONS"] = f"-c search_path={SCHEMA}"
os.environ["REDIS_DATABASE"] = "15"

from alembic import command  # noqa: E402
from alembic.config import Config  # noqa: E402
from sqlalchemy import text  # noqa: E402

from fba_app import cache, db  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _schema() -> Iterator[None]:
    with db.engine().begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    try:
        command.upgrade(Config("alembic.ini"), "head")
        yield
    finally:
        with db.engine().begin() as connection:
            connection.execute(text(f"DROP SCHEMA {SCHEMA} CASCADE"))
        cache.sync_client().flushdb()
