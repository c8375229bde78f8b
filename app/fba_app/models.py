"""Every table: importing this makes `Base.metadata` whole."""

from fba_app.audit.models import AuditEntry
from fba_app.db import Base
from fba_app.files.models import File
from fba_app.health.models import Heartbeat
from fba_app.schedules.models import Schedule
from fba_app.tasks.models import Task
from fba_app.users.models import Role, User

__all__ = ["AuditEntry", "Base", "File", "Heartbeat", "Role", "Schedule", "Task", "User"]
