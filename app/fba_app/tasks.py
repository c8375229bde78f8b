"""The tasks.

Names are given, not derived, so that moving a function orphans no message that is already queued.
"""

import time

from fba_app.celery import app
from fba_app.db import beat


@app.task(name="fba_app.sleep")  # type: ignore[untyped-decorator]
def sleep(duration: int) -> str:
    """Wait for `duration` seconds; in a gevent worker that leaves the process to the other tasks."""
    time.sleep(duration)
    return f"Task completed in {duration} seconds!"


# A heartbeat that nobody reads the result of should not write one.
@app.task(name="fba_app.heartbeat", ignore_result=True)  # type: ignore[untyped-decorator]
def heartbeat() -> None:
    """Record that the way from beat through the broker and a worker to PostgreSQL is open.

    Raises:
        sqlalchemy.exc.OperationalError: PostgreSQL is away.
    """
    beat("beat")
