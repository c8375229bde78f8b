"""The kind `pipeline` through PostgreSQL: its file, its parts as tasks, and their results."""

from collections.abc import Callable
from io import BytesIO
from uuid import UUID, uuid4

import pandas as pd
import pytest
from sqlalchemy import delete, select

from fba_app import db
from fba_app.files.models import File, Purpose
from fba_app.files.storage.postgres import PostgresStorage
from fba_app.kinds import pipeline
from fba_app.tasks import runner
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import CPU_QUEUE

Submit = Callable[[bytes], UUID]


@pytest.fixture
def submit(monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Store a file, and add the task that works on it in parts of 1000 bytes."""
    storage = PostgresStorage()
    monkeypatch.setattr(pipeline, "get_storage", lambda: storage)
    monkeypatch.setattr(pipeline, "PART_SIZE", 1000)

    def submit(content: bytes) -> UUID:
        file = File(id=uuid4(), name="a.csv", content_type="text/csv", size=len(content), sha256="0" * 64)
        file.purpose = Purpose.UPLOAD
        storage.put(file.key, [content])
        arguments = {"file_id": str(file.id), "group_by": "city", "value": "price"}
        task = Task(id=uuid4(), kind="pipeline", queue=CPU_QUEUE, arguments=arguments)
        with db.session() as session, session.begin():
            session.add_all([file, task])
        return task.id

    return submit


def get(task_id: UUID) -> Task:
    with db.session() as session:
        return session.get_one(Task, task_id)


def parts_of(task_id: UUID) -> list[Task]:
    with db.session() as session:
        return list(session.scalars(select(Task).where(Task.parent_id == task_id).order_by(Task.part)))


def csv(prices: list[str]) -> bytes:
    cities = ["Köln", 'a "b"\n', "\u2028", "", "Oslo"]
    quoted = ['"' + city.replace('"', '""') + '"' for city in cities]
    rows = [f"{quoted[number % 5]},{price}" for number, price in enumerate(prices)]
    return "\n".join(["city,price", *rows]).encode()


def test_the_parts_run_in_any_order_and_join(submit: Submit) -> None:
    content = csv([f"{number * 1e7 / 3:.7g}" for number in range(500)] + ["1e22", "1e-300", "", "1e300"])
    task_id = submit(content)
    runner.run(task_id)
    parts = parts_of(task_id)
    assert (get(task_id).state, get(task_id).parts) == (State.WAITING, len(parts))
    assert len(parts) > 5
    assert all((part.kind, part.queue) == ("pipeline_part", CPU_QUEUE) for part in parts)
    for part in reversed(parts):
        runner.run(part.id)
    runner.run(task_id)

    task = get(task_id)
    assert (task.state, task.error) == (State.SUCCEEDED, None)
    assert task.result is not None
    frame = pd.read_csv(BytesIO(content), dtype={"city": str})
    price = task.result["columns"][1]
    assert (task.result["rows"], task.result["bytes"], task.result["parts"]) == (len(frame), len(content), len(parts))
    assert (price["count"], price["missing"]) == (503, 1)
    assert (price["min"], price["max"]) == (frame["price"].min(), frame["price"].max())
    assert price["sum"] == pytest.approx(frame["price"].sum(), rel=1e-9)
    table = frame.groupby("city")["price"].agg(["count", "sum", "min", "max"])
    rows = task.result["groups"]["rows"]
    assert [row["group"] for row in rows] == list(table.index)
    assert [row["count"] for row in rows] == list(table["count"])
    for key in ("sum", "min", "max"):
        assert [row[key] for row in rows] == pytest.approx(list(table[key]), rel=1e-9)


def test_infinite_numbers_come_through_json(submit: Submit) -> None:
    task_id = submit(csv(["1", "inf"] * 200))
    runner.run(task_id)
    for part in parts_of(task_id):
        runner.run(part.id)
    runner.run(task_id)
    result = get(task_id).result
    assert result is not None
    assert {key: result["columns"][1][key] for key in ("min", "max", "sum", "mean", "std")} == {
        "min": 1.0,
        "max": "inf",
        "sum": "inf",
        "mean": "inf",
        "std": None,
    }


def test_a_malformed_part_fails_the_task(submit: Submit) -> None:
    task_id = submit(csv(["1"] * 300 + ["1,2"] + ["1"] * 300))
    runner.run(task_id)
    for part in parts_of(task_id):
        runner.run(part.id)
    assert (get(task_id).state, get(task_id).error) == (
        State.FAILED,
        "A record has more fields than the header row.",
    )


def test_a_file_that_was_deleted_fails_the_task(submit: Submit) -> None:
    task_id = submit(csv(["1"]))
    with db.session() as session, session.begin():
        session.execute(delete(File))
    runner.run(task_id)
    assert (get(task_id).state, get(task_id).error) == (State.FAILED, "The file was deleted.")
