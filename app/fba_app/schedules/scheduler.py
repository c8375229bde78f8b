"""Beat's scheduler: Celery's own for what the code schedules, and a thread beside it for the schedules of users.

The thread only writes to PostgreSQL: a tick is one transaction that adds the task and moves the schedule on, and the
servers publish the task like any other. So a broker that is away stops no schedule; a tick that fails is still due at
the next look; and two beats that look at once make one task. Of the ticks that were missed, because beat or PostgreSQL
was away, one is made up for, and not all.
"""

import logging
import threading
import time
from datetime import UTC
from typing import Any
from uuid import UUID, uuid4

from celery.beat import Scheduler
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError, SQLAlchemyError

# A schedule refers to users and tasks, and its task may be of any kind.
import fba_app.kinds
import fba_app.models  # noqa: F401
from fba_app import db
from fba_app.health import heartbeats
from fba_app.schedules.models import Schedule
from fba_app.schedules.times import next_run
from fba_app.settings import get_settings
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import KINDS
from fba_app.users.models import User

INTERVAL = 1.0
"""Seconds between two looks at the schedules: how late a tick or a change may be."""

HEARTBEAT_INTERVAL = 5.0

logger = logging.getLogger(__name__)


def _why_not(kind: str) -> str | None:
    if kind not in KINDS:
        return "there is no such kind of task any more"
    return KINDS[kind].unavailable(get_settings())


def fire(schedule_id: UUID) -> bool:
    """Make the tick of a schedule that is due; return whether it still was."""
    due = select(Schedule, func.now()).where(Schedule.id == schedule_id, Schedule.next_run_at <= func.now())
    with db.session() as session, session.begin():
        # Who changes it or makes the tick at this moment has it first.
        found = session.execute(due.with_for_update(skip_locked=True)).one_or_none()
        if found is None:
            return False
        schedule, now = found
        assert schedule.next_run_at is not None  # noqa: S101
        at = schedule.next_run_at.astimezone(UTC)
        schedule.last_run_at = at
        schedule.next_run_at = next_run(schedule.crontab, schedule.every, now)
        maker = session.get(User, schedule.created_by) if schedule.created_by else None
        reason = "whoever made it is disabled" if maker and maker.disabled else _why_not(schedule.kind)
        if reason:
            logger.error("the schedule %s (%s) cannot run %s: %s", schedule.id, at, schedule.kind, reason)
            return True
        task = insert(Task).values(
            id=uuid4(),
            kind=schedule.kind,
            queue=KINDS[schedule.kind].queue,
            state=State.QUEUED,
            arguments=schedule.arguments,
            submitted_by=schedule.created_by,
            idempotency_key=f"schedule:{schedule.id}:{at.isoformat()}",
        )
        session.execute(task.on_conflict_do_nothing(index_elements=[Task.idempotency_key]))
    logger.info("the schedule %s (%s) has added a task of kind %s", schedule.id, at, schedule.kind)
    return True


def fire_due() -> None:
    """Make every tick that is due.

    Raises:
        sqlalchemy.exc.OperationalError: PostgreSQL is away.
    """
    due = select(Schedule.id).where(Schedule.next_run_at <= func.now()).order_by(Schedule.next_run_at)
    with db.session() as session:
        ids = session.scalars(due).all()
    for schedule_id in ids:
        try:
            fire(schedule_id)
        except OperationalError:
            raise
        except Exception:
            # One that cannot be made must not keep the others waiting.
            logger.exception("the schedule %s failed, and is tried again", schedule_id)


def realign() -> None:
    """Compute anew when schedules run next: the time zone, or its rules, may have changed while beat was not there."""
    coming = select(Schedule, func.now()).where(Schedule.next_run_at > func.now(), Schedule.crontab.is_not(None))
    with db.session() as session, session.begin():
        for schedule, now in session.execute(coming.with_for_update()):
            schedule.next_run_at = next_run(schedule.crontab, schedule.every, now)


class DatabaseScheduler(Scheduler):  # type: ignore[misc]
    """Named by Celery's setting `beat_scheduler`."""

    def setup_schedule(self) -> None:
        """Begin; Celery calls it once, and not on a scheduler that is only made to be shown."""
        super().setup_schedule()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedules", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; Celery may call it twice."""
        self._ended.set()
        self._thread.join(timeout=HEARTBEAT_INTERVAL)
        super().close()

    def _run(self) -> None:
        aligned, beat_at = False, float("-inf")
        while not self._ended.is_set():
            try:
                if not aligned:
                    realign()
                    aligned = True
                if time.monotonic() - beat_at >= HEARTBEAT_INTERVAL:
                    heartbeats.beat(heartbeats.BEAT)
                    beat_at = time.monotonic()
                fire_due()
            except SQLAlchemyError as error:
                logger.warning("the schedules wait for PostgreSQL: %s", error)
            except Exception:
                # A thread that ended would leave a beat that looks well and does nothing.
                logger.exception("the schedules failed, and go on")
            self._ended.wait(INTERVAL)

    @property
    def info(self) -> Any:  # noqa: ANN401
        """What beat says when it starts."""
        return "    . schedules -> PostgreSQL"
