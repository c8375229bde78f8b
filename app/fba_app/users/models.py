"""The tables of users and roles."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, CheckConstraint, Column, ForeignKey, Index, String, Table, Text, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fba_app.db import Base

ADMIN = "admin"
"""The role that may do everything. There is always an enabled user who has it."""

user_roles = Table(
    "user_roles",
    Base.metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    # A role that someone has is not deleted.
    Column("role_id", ForeignKey("roles.id", ondelete="RESTRICT"), primary_key=True, index=True),
)


class Role(Base):
    """A name for some permissions."""

    __tablename__ = "roles"
    __table_args__ = (Index("ix_roles_created", "created_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(default="")
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    built_in: Mapped[bool] = mapped_column(default=False)
    """Made by `python -m fba_app init`, and the same everywhere."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class User(Base):
    """Someone who can log in."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("username = lower(username)", name="username"),
        Index("ix_users_created", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    """In lower case: names that differ in case only are one name."""
    password_hash: Mapped[str]
    disabled: Mapped[bool] = mapped_column(default=False)
    epoch: Mapped[int] = mapped_column(default=0)
    """Sessions begun in an earlier one do not count: raising it ends them all, in the same transaction."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_login_at: Mapped[datetime | None]

    roles: Mapped[list[Role]] = relationship(
        secondary=user_roles, lazy="selectin", order_by=Role.name, passive_deletes=True
    )
