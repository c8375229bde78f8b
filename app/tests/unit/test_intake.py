"""Tasks that come in at the same time, without PostgreSQL."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from fba_app.tasks import intake
from fba_app.tasks.intake import Intake, Row
from fba_app.tasks.models import Task


class Table(intake.Table):
    """Keeps what is written; a statement takes until it is let go."""

    def __init__(self, fault: Callable[[Sequence[Row]], Exception | None] = lambda _: None) -> None:
        self.fault = fault
        self.released = 0
        self.batches: list[int] = []
        self.rows: list[Row] = []
        self.go = asyncio.Event()
        self.go.set()

    async def write(self, rows: Sequence[Row]) -> dict[UUID, Task]:
        self.batches.append(len(rows))
        await self.go.wait()
        if error := self.fault(rows):
            raise error
        keys = {row["idempotency_key"] for row in self.rows}
        new = [row for row in rows if row["idempotency_key"] not in keys]
        self.rows += new
        return {row["id"]: Task(**row) for row in new}

    async def release(self) -> None:
        self.released += 1


def row(**values: Any) -> Row:
    return {"id": uuid4(), "idempotency_key": str(uuid4()), **values}


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_statement_needs_no_table_but_its_own() -> None:
    """In a process that has imported nothing else, because whoever runs before this test has imported everything."""
    program = """
from sqlalchemy.dialects.postgresql import psycopg
from fba_app.tasks import intake
print(intake.NEW.compile(dialect=psycopg.dialect()))
"""
    made = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout  # noqa: S603
    assert "jsonb_to_recordset" in made
    assert "submitted_by UUID" in made


def test_who_comes_meanwhile_shares_the_next_statement() -> None:
    async def check() -> None:
        table = Table()
        table.go.clear()
        door = Intake(lambda: table)
        rows = [row() for _ in range(5)]
        waiting = []
        for each in rows:
            waiting.append(asyncio.create_task(door.add(each)))
            await settle()
        assert not any(task.done() for task in waiting)
        table.go.set()
        answers = await asyncio.gather(*waiting)
        assert [task.id if task else None for task in answers] == [each["id"] for each in rows]
        assert table.batches == [1, 4]
        # Its connection is kept as long as somebody waits
        await settle()
        assert table.released == 1
        # And again when all was quiet
        assert await door.add(row())
        assert table.batches == [1, 4, 1]
        await settle()
        assert table.released == 2

    asyncio.run(check())


def test_who_comes_while_the_connection_is_given_back_is_written() -> None:
    async def check() -> None:
        given_back = asyncio.Event()

        class Slow(Table):
            async def release(self) -> None:
                await super().release()
                await given_back.wait()

        table = Slow()
        door = Intake(lambda: table)
        assert await door.add(row())
        assert table.released == 1
        late = asyncio.create_task(door.add(row()))
        await settle()
        given_back.set()
        assert await asyncio.wait_for(late, timeout=5)
        assert table.batches == [1, 1]

    asyncio.run(check())


def test_a_statement_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST", 3)

    async def check() -> None:
        table = Table()
        door = Intake(lambda: table)
        await asyncio.gather(*(door.add(row()) for _ in range(8)))
        assert table.batches == [3, 3, 2]

    asyncio.run(check())


def test_a_known_key_makes_no_task() -> None:
    async def check() -> None:
        table = Table()
        door = Intake(lambda: table)
        known = row()
        assert await door.add(known)
        again, other = await asyncio.gather(door.add({**known, "id": uuid4()}), door.add(row()))
        assert again is None
        assert other

    asyncio.run(check())


def wrong(error: type[DataError] | type[OperationalError]) -> Exception:
    return error("INSERT", {}, Exception("what PostgreSQL says"))


def test_what_is_wrong_with_one_is_no_matter_of_the_others() -> None:
    async def check() -> None:
        table = Table(lambda rows: wrong(DataError) if any(each["kind"] == "bad" for each in rows) else None)
        door = Intake(lambda: table)
        answers = await asyncio.gather(
            *(door.add(row(kind=kind)) for kind in ("good", "bad", "good")), return_exceptions=True
        )
        assert isinstance(answers[1], DataError)
        assert [each["kind"] for each in table.rows] == ["good", "good"]
        assert isinstance(answers[0], Task)
        assert isinstance(answers[2], Task)

    asyncio.run(check())


def test_who_waits_for_a_lock_holds_up_nobody() -> None:
    locked = OperationalError("INSERT", {}, LockNotAvailable("canceling statement due to lock timeout"))

    async def check() -> None:
        held = asyncio.Event()

        class Locked(Table):
            async def write(self, rows: Sequence[Row]) -> dict[UUID, Task]:
                if any(each["kind"] == "locked" for each in rows):
                    self.batches.append(len(rows))
                    if len(rows) == 1:
                        await held.wait()
                    raise locked
                return await super().write(rows)

        table = Locked()
        door = Intake(lambda: table)
        first = [asyncio.create_task(door.add(row(kind=kind))) for kind in ("good", "locked", "good")]
        await settle()
        # The one that waits alone is still at it
        assert [task.done() for task in first] == [True, False, True]
        assert await door.add(row(kind="good"))
        held.set()
        with pytest.raises(OperationalError):
            await first[1]
        assert table.batches == [3, 1, 1, 1, 1]

    asyncio.run(check())


def test_who_has_waited_long_enough_is_refused_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PATIENCE", 0.01)

    async def check() -> None:
        table = Table()
        table.go.clear()
        door = Intake(lambda: table)
        being_written = asyncio.create_task(door.add(row()))
        await settle()
        with pytest.raises(PoolTimeoutError):
            await door.add(row())
        assert not being_written.done()
        table.go.set()
        assert await being_written
        assert len(table.rows) == 1

    asyncio.run(check())


def test_who_goes_away_while_it_waits_is_not_written() -> None:
    async def check() -> None:
        table = Table()
        table.go.clear()
        door = Intake(lambda: table)
        first = asyncio.create_task(door.add(row()))
        await settle()
        gone = asyncio.create_task(door.add(row()))
        await settle()
        gone.cancel()
        table.go.set()
        assert await first
        await settle()
        assert table.batches == [1]

    asyncio.run(check())


def test_when_the_database_is_away_all_hear_of_it_at_once_and_those_after_them_are_tried() -> None:
    async def check() -> None:
        table = Table(lambda _: wrong(OperationalError))
        door = Intake(lambda: table)
        answers = await asyncio.gather(*(door.add(row()) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [OperationalError] * 3
        assert table.batches == [3]
        table.fault = lambda _: None
        assert await door.add(row())

    asyncio.run(check())


def test_who_goes_away_holds_up_nobody() -> None:
    async def check() -> None:
        table = Table()
        table.go.clear()
        door = Intake(lambda: table)
        gone, patient = (asyncio.create_task(door.add(row())) for _ in range(2))
        await settle()
        gone.cancel()
        await settle()
        table.go.set()
        assert await patient
        assert gone.cancelled()
        # It was written all the same
        assert len(table.rows) == 2

    asyncio.run(check())
