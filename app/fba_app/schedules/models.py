"""The table of schedules."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from fba_app.db import Base

SHORTEST = 10
"""Seconds between two runs, at least."""


class Schedule(Base):
    """A task that comes again and again."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("(crontab IS NULL) <> (every IS NULL)", name="crontab_or_every"),
        CheckConstraint(f"every >= {SHORTEST}", name="every"),
        CheckConstraint("enabled = (next_run_at IS NOT NULL)", name="next_run_at"),
        Index("ix_schedules_created", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    kind: Mapped[str] = mapped_column(String(64))
    arguments: Mapped[dict[str, Any]]

    crontab: Mapped[str | None]
    """Minute, hour, day of the month, month, day of the week, in the settings' time zone."""
    every: Mapped[int | None]
    """Seconds between two runs, where there is no crontab."""
    enabled: Mapped[bool] = mapped_column(default=True)

    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    """Whose tasks they are."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """By a user."""
    last_run_at: Mapped[datetime | None]
    """For when the last run was scheduled, which is not quite when it began."""
    next_run_at: Mapped[datetime | None] = mapped_column(index=True)
    """For when the next one is; none while the schedule is not enabled."""
