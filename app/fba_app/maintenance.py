"""What the application does for itself, by the clock: proves that its workers work, and throws away what is old.

These are plain Celery tasks and no rows: one that is lost comes again soon.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery.schedules import crontab
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import InstrumentedAttribute

import fba_app.models  # noqa: F401
from fba_app import cache, db
from fba_app.audit.models import AuditEntry
from fba_app.celery import app
from fba_app.files import service as files
from fba_app.health import heartbeats
from fba_app.settings import get_settings
from fba_app.tasks.models import Task
from fba_app.tasks.registry import IO_QUEUE

BATCH = 200
"""Rows that one transaction deletes, not counting what goes with them."""

SESSION_LISTS = "sessions:*"
"""The keys of the lists of users' sessions, which are sorted by when they end."""

logger = logging.getLogger(__name__)

# What no worker has taken until the next one comes is of no use any more.
app.conf.beat_schedule = {
    f"heartbeat-{queue}": {
        "task": "fba_app.heartbeat",
        "schedule": crontab(),
        "args": [queue],
        "options": {"queue": queue, "expires": 60},
    }
    for queue in heartbeats.QUEUES
} | {
    "cleanup": {
        "task": "fba_app.cleanup",
        "schedule": crontab(minute="17"),
        "options": {"queue": IO_QUEUE, "expires": 3600},
    },
}


@app.task(name="fba_app.heartbeat", ignore_result=True)  # type: ignore[untyped-decorator]
def heartbeat(queue: str) -> None:
    """Record that the way from beat through the broker and a worker of this queue to PostgreSQL is open.

    Raises:
        sqlalchemy.exc.OperationalError: PostgreSQL is away.
    """
    heartbeats.beat(heartbeats.worker(queue))


def _delete(key: InstrumentedAttribute[Any], created_at: InstrumentedAttribute[Any], *old: ColumnElement[bool]) -> int:
    """Delete the rows that are old, the oldest first, in one transaction for each batch; return how many."""
    batch = select(key).where(*old).order_by(created_at).limit(BATCH).with_for_update(skip_locked=True)
    deleted = 0
    while True:
        with db.session() as session, session.begin():
            gone = len(session.scalars(delete(key.class_).where(key == db.any_of(batch)).returning(key)).all())
        deleted += gone
        if gone < BATCH:
            return deleted


def delete_tasks() -> int:
    """Delete tasks that were done long ago, and their parts with them; return how many there were without the parts."""
    limit = func.now() - timedelta(days=get_settings().task_retention_days)
    # The second follows from the first, and has an index.
    old = Task.finished_at < limit, Task.created_at < limit
    # A part is needed as long as its whole.
    return _delete(Task.id, Task.created_at, *old, Task.parent_id.is_(None))


def delete_audit_entries() -> int:
    """Delete the audit log's old lines; return how many."""
    limit = func.now() - timedelta(days=get_settings().audit_retention_days)
    return _delete(AuditEntry.id, AuditEntry.created_at, AuditEntry.created_at < limit)


def delete_session_entries() -> int:
    """Delete, from the lists of users' sessions, those that have ended by themselves; return how many."""
    client = cache.sync_client()
    return sum(
        client.zremrangebyscore(key, "-inf", int(time.time())) for key in client.scan_iter(SESSION_LISTS, count=BATCH)
    )


STEPS: dict[str, Callable[[], int]] = {
    "tasks": delete_tasks,
    "files": files.delete_expired,
    "audit entries": delete_audit_entries,
    "sessions": delete_session_entries,
}


@app.task(name="fba_app.cleanup", ignore_result=True)  # type: ignore[untyped-decorator]
def cleanup() -> None:
    """Throw away what is old. Safe to run twice at once."""
    for what, step in STEPS.items():
        try:
            if gone := step():
                logger.info("%s old %s were deleted", gone, what)
        except Exception:
            # What keeps one from being done must not keep the others.
            logger.exception("old %s are kept until the next time", what)
