"""PostgreSQL, Redis and RabbitMQ as the settings name them, with a schema and a database number for these tests alone.

Run by `make test-app` in the network of a running stack, or by hand with `FBA_ENV_FILE` set.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values, set_key

# Of the deployment's settings, only the way to its services: what else is set there, no test may depend on.
CONNECTIONS = ("DB_", "REDIS_", "RABBITMQ_", "TLS_", "JWT_")
directory = tempfile.TemporaryDirectory()
settings = Path(directory.name) / "env"
settings.touch(mode=0o600)
for name, value in dotenv_values(os.environ["FBA_ENV_FILE"]).items():
    if value and name.startswith(CONNECTIONS):
        set_key(settings, name, value)
os.environ["FBA_ENV_FILE"] = str(settings)

SCHEMA = f"test_{secrets.token_hex(4)}"
# The driver reads it at each connection: so all that the application makes and finds is in the schema.
os.environ["PGOPTIONS"] = f"-c search_path={SCHEMA}"
assert dotenv_values(settings).get("REDIS_DATABASE") != "15", "its sessions would be lost"
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
