"""Settings and a client for the tests.

The settings point every connection at a port on which nothing listens, so what a test does not replace really fails.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

with socket.socket() as closed:
    closed.bind(("127.0.0.1", 0))
    CLOSED_PORT = str(closed.getsockname()[1])

ENVIRONMENT = {
    "FBA_ENV_FILE": os.devnull,
    "DB_HOST": "127.0.0.1",
    "DB_PORT": CLOSED_PORT,
    "DB_USER": "app",
    "DB_PASSWORD": "db-pass",
    "DB_DATABASE": "app",
    "REDIS_HOST": "127.0.0.1",
    "REDIS_PORT": CLOSED_PORT,
    "REDIS_PASSWORD": "redis-pass",
    "RABBITMQ_HOST": "127.0.0.1",
    "RABBITMQ_PORT": CLOSED_PORT,
    "RABBITMQ_USERNAME": "app",
    "RABBITMQ_PASSWORD": "rabbit-pass",
    "JWT_SECRET_KEY": "q8Zr2mVx4Lk9TnB7wYc3HsD6fGj1PaUe",
}

from fba_app.settings import Settings  # noqa: E402

# Modules read the settings when imported, so this must stand before any test module imports them.
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)
os.environ.update(ENVIRONMENT)


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dotenv file with valid settings, and an environment without any."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name)
    path = tmp_path / "app.env"
    path.write_text("".join(f"{key}={value}\n" for key, value in ENVIRONMENT.items() if key != "FBA_ENV_FILE"))
    monkeypatch.setenv("FBA_ENV_FILE", str(path))
    return path


@pytest.fixture
def client() -> Iterator[TestClient]:
    """The application as it is served."""
    from fba_app.main import app

    with TestClient(app) as client:
        yield client
