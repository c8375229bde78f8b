"""The audit log's table."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from fba_app.db import Base


class AuditEntry(Base):
    """One deed. It outlives the user, whose name it keeps."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_created", "created_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    username: Mapped[str | None] = mapped_column(index=True)
    """Of a failed login, the name that was tried; none where the application itself acts."""
    action: Mapped[str] = mapped_column(String(64), index=True)
    object_id: Mapped[str | None]
    address: Mapped[str | None]
    """Where the request came from."""
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
