"""The table of tasks: what was asked for, and how it fares. The broker only says that there is something to do."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Uuid, and_, func, text
from sqlalchemy.orm import Mapped, mapped_column

from fba_app.db import Base


class State(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"  # for the tasks that it has split itself into
    RETRYING = "retrying"  # failed, and comes again at `due_at`
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


LEASE = 30
"""Seconds that a claim holds without being renewed: how long a task waits when its worker was lost."""

FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Task(Base):
    """One task, from the request to the result."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(str(state)) for state in State)})", name="state"),
        # What the relay looks for, which is little among much that is done.
        Index(
            "ix_tasks_due", "due_at", postgresql_where=text("published_at IS NULL AND state IN ('queued', 'retrying')")
        ),
        Index("ix_tasks_published", "published_at", postgresql_where=text("state IN ('queued', 'retrying')")),
        Index("ix_tasks_lease", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_tasks_created", "created_at", "id"),
        Index("ix_tasks_kind_state", "kind", "state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    kind: Mapped[str] = mapped_column(String(64))
    queue: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default=State.QUEUED)
    arguments: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]

    idempotency_key: Mapped[str | None] = mapped_column(String(400), unique=True)
    """With the scope that it is unique in: `user:<id>:<key>`, `schedule:<id>:<time>`."""
    # With its type, which it would else have of the other table, and not before that is known.
    submitted_by: Mapped[UUID | None] = mapped_column(Uuid(), ForeignKey("users.id", ondelete="SET NULL"), index=True)

    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    part: Mapped[int | None]
    """Which of its parent's parts this is, from 0."""
    parts: Mapped[int | None]
    """Into how many parts it has split itself."""
    parts_left: Mapped[int | None]
    """How many of them are not done. Who brings it to 0 wakes the parent, in the same transaction."""

    attempt: Mapped[int] = mapped_column(default=0)
    checkpoint: Mapped[dict[str, Any] | None]
    """What a task wants to know of its earlier attempts."""
    claim: Mapped[UUID | None]
    """Of the attempt that runs; an attempt that finds another one here has lost the task and changes nothing."""
    lease_until: Mapped[datetime | None]
    """Until when the attempt that runs counts as alive."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Not to be published before."""
    published_at: Mapped[datetime | None]
    """When the broker confirmed its message; none while it is due for one."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


DUE = and_(Task.published_at.is_(None), Task.state.in_([State.QUEUED, State.RETRYING]), Task.due_at <= func.now())
"""To be published."""
