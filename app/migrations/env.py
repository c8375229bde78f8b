"""How Alembic reaches the database."""

import logging

from alembic import context
from sqlalchemy import func, select

from fba_app.db import engine
from fba_app.models import Base

LOCK = 7_362_001
"""Any number, as long as every migration of this application takes the same lock."""

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

with engine().begin() as connection:
    # Two migrations at once wait for each other; the second then finds nothing to do.
    connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    context.configure(connection=connection, target_metadata=Base.metadata)
    context.run_migrations()
