"""The tables of files: a record of each, and the bytes of those that PostgreSQL keeps."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from fba_app.db import Base


class Purpose(StrEnum):
    """Where a file comes from."""

    UPLOAD = "upload"
    REPORT = "report"


class File(Base):
    """What is known of a file. Its bytes are in the storage, complete before this row exists."""

    __tablename__ = "files"
    __table_args__ = (
        CheckConstraint(f"purpose IN ({', '.join(repr(str(purpose)) for purpose in Purpose)})", name="purpose"),
        Index("ix_files_created", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(255))
    size: Mapped[int] = mapped_column(BigInteger)
    """Bytes."""
    sha256: Mapped[str] = mapped_column(String(64))
    purpose: Mapped[str] = mapped_column(String(16))
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"), index=True)
    """The task that made it."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def key(self) -> str:
        """The name of its bytes in the storage."""
        return self.id.hex


class StorageChunk(Base):
    """A piece of an object: all but the last of one length, numbered from 0. The first is written last, as the seal."""

    __tablename__ = "storage_chunks"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
