"""`/api/v1/audit`."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import ConfigDict, Field
from sqlalchemy import select

from fba_app import errors
from fba_app.audit.models import AuditEntry
from fba_app.dependencies import Cursor, Limit, Session
from fba_app.paging import page
from fba_app.types import Model, Moment, Page, ShortText
from fba_app.users.access import require
from fba_app.users.principal import Permission, Principal

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


class AuditView(Model):
    """One deed."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "c1a6f9d4-3f1e-4f5e-9d0a-5f4f3b7a2a11",
                "created_at": "2026-11-20T12:00:00Z",
                "user_id": "3f0c2b1e-8a53-4a5e-9a0a-6d2f9f5f7a10",
                "username": "ada",
                "action": "role.create",
                "object_id": "auditor",
                "address": "192.0.2.7",
                "details": {"permissions": ["audit:read"]},
            }
        }
    )

    id: UUID
    created_at: datetime
    user_id: UUID | None = Field(description="Absent where nobody was logged in, or the user is deleted.")
    username: str | None = Field(description="Of a failed login, the name that was tried.")
    action: str
    object_id: str | None = Field(description="What it was done to.")
    address: str | None = Field(description="Where the request came from.")
    details: dict[str, Any]


@router.get("", summary="Read the audit log", responses=errors.responses(401, 403, 422, 503))
async def list_entries(
    reader: Annotated[Principal, Depends(require(Permission.AUDIT_READ))],
    session: Session,
    action: Annotated[ShortText | None, Query(description="Such as `login.failed`.", examples=["login"])] = None,
    username: Annotated[ShortText | None, Query(description="In lower case.", examples=["ada"])] = None,
    since: Annotated[Moment | None, Query(description="Not before.", examples=["2026-11-20T12:00:00Z"])] = None,
    until: Annotated[Moment | None, Query(description="Before.", examples=["2026-11-21T12:00:00Z"])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AuditView]:
    """List who did what, the newest first."""
    query = select(AuditEntry)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if username is not None:
        query = query.where(AuditEntry.username == username)
    if since is not None:
        query = query.where(AuditEntry.created_at >= since)
    if until is not None:
        query = query.where(AuditEntry.created_at < until)
    rows, following = await page(session, query, AuditEntry, limit, cursor)
    return Page(items=[AuditView.model_validate(row) for row in rows], next=following)
