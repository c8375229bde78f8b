"""What routes depend on, and parameters that many have."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Query
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db


async def _async_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(db.async_engine(), expire_on_commit=False) as session:
        yield session


Session = Annotated[AsyncSession, Depends(_async_session, scope="function")]
"""A request's session. Whoever changes something commits it, once: `await session.commit()`."""

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")]
