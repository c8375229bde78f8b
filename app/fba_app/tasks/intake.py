"""Tasks that are submitted at the same time are written by one statement, which is a transaction of its own.

A commit waits for PostgreSQL's disk, and a statement for its answer. While one statement is on its way, whoever comes
waits for the next one and shares it. Alone, a task is written at once. Where one of them cannot be written, each has a
statement of its own, so that it is no matter of the others.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, column, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from fba_app import db
from fba_app.tasks.models import Task

MOST = 200
"""Tasks in one statement."""

PATIENCE = db.PATIENCE
"""Seconds that a task waits for its statement to begin. As long as anything else waits for a connection."""

Row = dict[str, Any]
"""The columns `GIVEN` of a task."""

Entry = tuple[Row, asyncio.Future[Task | None]]
"""A row that waits to be written, and who waits for it."""

_table = db.Base.metadata.tables[Task.__tablename__]
GIVEN = [_table.c[name] for name in ("id", "kind", "queue", "state", "arguments", "submitted_by", "idempotency_key")]
"""What whoever adds a task says of it."""

_filled = [each for each in _table.c if each not in set(GIVEN) and (each.default or each.server_default) is not None]

# All rows are one parameter. So it is the same statement for any number of them, and is put together once.
_rows = func.jsonb_to_recordset(bindparam("rows", type_=JSONB)).table_valued(
    *(column(each.name, each.type) for each in GIVEN)
)
NEW = (
    insert(_table)
    .from_select([each.name for each in GIVEN], select(*_rows.render_derived(with_types=True).c))
    .on_conflict_do_nothing(index_elements=[_table.c.idempotency_key])
    .returning(_table.c.id, *_filled)
)
"""Adds tasks, `rows`, and returns the ids of those whose idempotency key is not there yet, and what was filled in."""


def _as_json(row: Row) -> Row:
    return {name: str(value) if isinstance(value, UUID) else value for name, value in row.items()}


async def insert_tasks(connection: AsyncConnection | AsyncSession, rows: Sequence[Row]) -> dict[UUID, Task]:
    """Write tasks by one statement; return by id those whose idempotency key was not there yet.

    Two requests with one key at the same time: the second waits for the first to commit.
    """
    # In one order everywhere, so that no two transactions wait for each other.
    ordered = sorted(rows, key=lambda row: row["idempotency_key"] or "")
    filled = await connection.execute(NEW, {"rows": [_as_json(row) for row in ordered]})
    given = {row["id"]: row for row in rows}
    return {each.id: Task(**given[each.id] | each._asdict()) for each in filled}


class Table:
    """The table of tasks, on a connection of its own that is kept until it is let go."""

    def __init__(self) -> None:
        self._connection: AsyncConnection | None = None

    async def write(self, rows: Sequence[Row]) -> dict[UUID, Task]:
        """Write all of these tasks, or none if it raises; return by id those that are new."""
        if self._connection is None:
            # A statement alone is a transaction: to begin and to end it would be two more questions to PostgreSQL. So
            # would be whether the connection stands, which the pool asks whenever one is taken.
            engine = db.async_engine().execution_options(isolation_level="AUTOCOMMIT")
            self._connection = await engine.connect()
        try:
            return await insert_tasks(self._connection, rows)
        except BaseException:
            await self.release()
            raise

    async def release(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Intake:
    """Where tasks come in. One for each server process, used from its event loop."""

    def __init__(self, table: Callable[[], Table] = Table) -> None:
        """`table` makes what rows are written to, one after the other."""
        self._table = table
        self._waiting: list[Entry] = []
        self._writer: asyncio.Task[None] | None = None
        """Writes as long as somebody waits."""
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
        table = self._table()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                # Who has gone meanwhile wants no task any more.
                if wanted := [entry for entry in batch if not entry[1].done()]:
                    await self._add(table, wanted)
                if not self._waiting:
                    # Somebody may come meanwhile.
                    await table.release()
        finally:
            self._writer = None

    async def _add_alone(self, entry: Entry) -> None:
        table = self._table()
        await self._add(table, [entry])
        await table.release()

    async def _add(self, table: Table, batch: Sequence[Entry]) -> None:
        try:
            new = await table.write([row for row, _ in batch])
        except Exception as error:
            if len(batch) == 1 or (isinstance(error, db.AWAY) and not db.waited_for_a_lock(error)):
                self._refuse(batch, error)
            else:
                # At the same time, as many as there are connections, and nobody waits for them.
                for each in batch:
                    alone = asyncio.create_task(self._add_alone(each))
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
