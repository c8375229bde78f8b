"""Tasks that are submitted at the same time are written in one transaction.

A commit waits for PostgreSQL's disk, and a statement for its answer. While one transaction is on its way, whoever comes
waits for the next one and shares it. Alone, a task is written at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db
from fba_app.tasks.models import Task

MOST = 200
"""Tasks in one transaction."""

Row = dict[str, Any]
"""The columns of a task, its id among them."""


NEW = insert(Task).on_conflict_do_nothing(index_elements=[Task.idempotency_key]).returning(Task)
"""Adds rows, and returns those whose idempotency key is not there yet.

Two requests with one key at the same time: the second waits for the first to commit.
"""


async def _insert(rows: Sequence[Row]) -> dict[UUID, Task]:
    """Write tasks; return by id those that are new."""
    # In one order everywhere, so that no two transactions wait for each other.
    ordered = sorted(rows, key=lambda row: row["idempotency_key"] or "")
    async with AsyncSession(db.async_engine(), expire_on_commit=False) as session:
        tasks = (await session.scalars(NEW, ordered)).all()
        await session.commit()
        return {task.id: task for task in tasks}


class Intake:
    """Where tasks come in. One for each server process, used from its event loop."""

    def __init__(self, write: Callable[[Sequence[Row]], Awaitable[dict[UUID, Task]]] = _insert) -> None:
        """`write` writes rows in one transaction: all of them, or none if it raises."""
        self._write = write
        self._waiting: list[tuple[Row, asyncio.Future[Task | None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def add(self, row: Row) -> Task | None:
        """Write a task; return it once it is committed, None if its idempotency key is there already.

        Raises:
            DBAPIError: what PostgreSQL says of this task, or that it is away.
        """
        written: asyncio.Future[Task | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._work())
        return await written

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._add(batch)
        finally:
            self._writer = None

    async def _add(self, batch: Sequence[tuple[Row, asyncio.Future[Task | None]]]) -> None:
        try:
            new = await self._write([row for row, _ in batch])
        except Exception as error:
            if len(batch) == 1 or isinstance(error, db.AWAY):
                self._refuse(batch, error)
            else:
                # What is wrong with one of them is no matter of the others.
                for each in batch:
                    await self._add([each])
        else:
            for row, written in batch:
                if not written.done():
                    written.set_result(new.get(row["id"]))

    @staticmethod
    def _refuse(batch: Sequence[tuple[Row, asyncio.Future[Task | None]]], error: BaseException) -> None:
        for _, written in batch:
            # Who has gone meanwhile asks no more.
            if not written.done():
                written.set_exception(error)


intake = Intake()
"""The process's own."""
