"""Names for what rows only have identifiers of."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.files.models import File
from fba_app.users.models import User


async def usernames(session: AsyncSession, ids: Iterable[UUID | None]) -> dict[UUID | None, str]:
    """Return the names of users, as far as there are such users."""
    wanted = {each for each in ids if each}
    if not wanted:
        return {}
    return {
        row.id: row.username for row in await session.execute(select(User.id, User.username).where(User.id.in_(wanted)))
    }


async def file_names(session: AsyncSession, ids: Iterable[UUID]) -> dict[UUID, str]:
    """Return the names of files, as far as there are such files."""
    wanted = set(ids)
    if not wanted:
        return {}
    return {row.id: row.name for row in await session.execute(select(File.id, File.name).where(File.id.in_(wanted)))}
