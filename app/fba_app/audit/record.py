"""Who did what: written in the same transaction as the deed."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.audit.models import AuditEntry
from fba_app.users.models import User
from fba_app.users.principal import Principal


def record(
    session: AsyncSession, user: Principal | None, action: str, object_id: object = None, **details: object
) -> None:
    """Add a line to the audit log.

    `action` is a name such as `schedule.create`; details must be fit for JSON, and no secrets.
    """
    # Someone may delete the user before this is written: then the name has to do.
    query = select(User.id).where(User.id == (user and user.id)).with_for_update(read=True, key_share=True)
    session.add(
        AuditEntry(
            user_id=query.scalar_subquery(),
            username=user and user.username,
            action=action,
            object_id=None if object_id is None else str(object_id),
            address=user and user.address,
            details=details,
        )
    )
