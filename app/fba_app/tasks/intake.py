"""Tasks that are submitted at the same time are written in one transaction.

A commit waits for PostgreSQL's disk, and a statement for its answer. While one transaction is on its way, whoever comes
waits for the next one and shares it. Alone, a task is written at once. Where one of them cannot be written, each has a
transaction of its own, so that it is no matter of the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db
from fba_app.tasks.models import Task

MOST = 200
"""Tasks in one transaction."""

PATIENCE = db.PATIENCE
"""Seconds that a task waits for its transaction to begin. As long as anything else waits for a connection."""

Row = dict[str, Any]
"""The columns of a task, its id among them."""

Entry = tuple[Row, asyncio.Future[Task | None]]
"""A row that waits to be written, and who waits for it."""

NEW = insert(Task).on_conflict_do_nothing(index_elements=[Task.idempotency_key]).returning(Task)
"""Adds rows, and returns those whose idempotency key is not there yet.

Two requests with one key at the same time: the second waits for the first to commit.
"""


async def _insert(rows: Sequence[Row]) -> dict[UUID, Task]:
    """Write tasks; return by id those that are new."""
    # In one order everywhere, so that no two transactions wait for each other; and such as have the same columns one
    # after the other, because they are one statement.
    ordered = sorted(rows, key=lambda row: (row["idempotency_key"] or "", row["submitted_by"] is None))
    async with AsyncSession(db.async_engine(), expire_on_commit=False) as session:
        tasks = (await session.scalars(NEW, ordered)).all()
        await session.commit()
        return {task.id: task for task in tasks}


class Intake:
    """Where tasks come in. One for each server process, used from its event loop."""

    def __init__(self, write: Callable[[Sequence[Row]], Awaitable[dict[UUID, Task]]] = _insert) -> None:
        """`write` writes rows in one transaction: all of them, or none if it raises."""
        self._write = write
        self._waiting: list[Entry] = []
        self._writer: asyncio.Task[None] | None = None
        self._apart: set[asyncio.Task[None]] = set()

    async def add(self, row: Row) -> Task | None:
        """Write a task; return it once it is committed, None if its idempotency key is there already.

        Raises:
            DBAPIError: what PostgreSQL says of this task, or that it is away.
            PoolTimeoutError: it has waited for `PATIENCE`, and was not written.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[Task | None] = loop.create_future()
        entry = (row, written)
        self._waiting.append(entry)
        late = loop.call_later(PATIENCE, self._give_up, entry)
        if self._writer is None:
            self._writer = asyncio.create_task(self._work())
        try:
            return await written
        finally:
            late.cancel()

    def _give_up(self, entry: Entry) -> None:
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._refuse([entry], PoolTimeoutError(f"PostgreSQL has taken no task for {PATIENCE} s"))

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                # Who has gone meanwhile wants no task any more.
                if wanted := [entry for entry in batch if not entry[1].done()]:
                    await self._add(wanted)
        finally:
            self._writer = None

    async def _add(self, batch: Sequence[Entry]) -> None:
        try:
            new = await self._write([row for row, _ in batch])
        except Exception as error:
            if len(batch) == 1 or (isinstance(error, db.AWAY) and not db.waited_for_a_lock(error)):
                self._refuse(batch, error)
            else:
                # At the same time, as many as there are connections, and nobody waits for them.
                for each in batch:
                    alone = asyncio.create_task(self._add([each]))
                    self._apart.add(alone)
                    alone.add_done_callback(self._apart.discard)
        else:
            for row, written in batch:
                if not written.done():
                    written.set_result(new.get(row["id"]))

    @staticmethod
    def _refuse(batch: Sequence[Entry], error: BaseException) -> None:
        for _, written in batch:
            # Who has gone meanwhile asks no more.
            if not written.done():
                written.set_exception(error)


intake = Intake()
"""The process's own."""
