"""What routes depend on, and parameters that many have."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Query
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db


async def _async_session() -> AsyncIterator[AsyncSession]:
    session = AsyncSession(db.async_engine(), expire_on_commit=False)
    try:
        yield session
    finally:
        # One that has committed, or never asked anything, holds no connection. To close it would cost a task of the
        # event loop and a greenlet all the same, for each request.
        if session.in_transaction():
            # Also where the client has gone: else its connection would be lost to the pool.
            await asyncio.shield(asyncio.create_task(session.close()))


Session = Annotated[AsyncSession, Depends(_async_session, scope="function")]
"""A request's session. Whoever changes something commits it, once: `await session.commit()`."""

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")]
