"""Lists in pages that stay right while rows are added: a cursor names the last row seen, not a number of rows."""

import base64
import binascii
import json
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.problems import InvalidError


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        at, identity = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return datetime.fromisoformat(at), UUID(identity)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        raise InvalidError("must be the `next` of an earlier page", ("query", "cursor")) from None


def _encode(at: datetime, identity: UUID) -> str:
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), str(identity)]).encode()).decode()


async def page(
    session: AsyncSession,
    query: Select[Any],
    model: Any,  # noqa: ANN401
    limit: int,
    cursor: str | None,
) -> tuple[list[Any], str | None]:
    """Return up to `limit` rows of a model that has `created_at` and `id`, the newest first, and the next cursor."""
    if cursor is not None:
        query = query.where(tuple_(model.created_at, model.id) < tuple_(*_decode(cursor)))
    query = query.order_by(model.created_at.desc(), model.id.desc()).limit(limit + 1)
    rows = list((await session.scalars(query)).all())
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], _encode(rows[limit - 1].created_at, rows[limit - 1].id)
