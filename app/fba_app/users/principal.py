"""Who asks, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Permission(StrEnum):
    """What a role can allow."""

    TASKS_SUBMIT = "tasks:submit"  # and see and cancel one's own
    TASKS_MANAGE = "tasks:manage"  # see and cancel everyone's
    SCHEDULES_MANAGE = "schedules:manage"
    FILES_WRITE = "files:write"  # and see and delete one's own
    FILES_MANAGE = "files:manage"  # see and delete everyone's
    USERS_MANAGE = "users:manage"
    AUDIT_READ = "audit:read"
    STACK_READ = "stack:read"  # workers and queues


@dataclass(frozen=True)
class Principal:
    """The user of a request."""

    id: UUID
    username: str
    permissions: frozenset[Permission]
    session_id: str
    address: str

    def may(self, permission: Permission) -> bool:
        """Return whether the user has this permission."""
        return permission in self.permissions
