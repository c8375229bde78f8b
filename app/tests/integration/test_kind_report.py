"""The kind `report`, from the rows of tasks to the files in the storage."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import openpyxl
import pytest
from pypdf import PdfReader
from sqlalchemy import delete

from fba_app import db
from fba_app.files import service as files
from fba_app.files.models import File
from fba_app.files.storage import get_storage
from fba_app.kinds.report import data
from fba_app.settings import get_settings
from fba_app.tasks import runner
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import CPU_QUEUE
from fba_app.users.models import User


@pytest.fixture
def users() -> Iterator[tuple[UUID, UUID]]:
    """Two users, and no task but theirs; all gone after the test."""
    ids = uuid4(), uuid4()
    with db.session() as session, session.begin():
        session.execute(delete(Task))
        session.add_all(User(id=each, username=f"reporter-{each}", password_hash="-") for each in ids)
    yield ids
    with db.session() as session, session.begin():
        session.execute(delete(Task))
        session.execute(delete(User).where(User.id.in_(ids)))


def add(user: UUID | None, state: State, created_at: datetime, seconds: float | None = None, **values: Any) -> UUID:
    task = Task(
        **({"id": uuid4(), "kind": "sleep", "queue": "io", "arguments": {}} | values),
        state=state,
        submitted_by=user,
        created_at=created_at,
        started_at=None if seconds is None else created_at,
        finished_at=None if seconds is None else created_at + timedelta(seconds=seconds),
    )
    with db.session() as session, session.begin():
        session.add(task)
    return task.id


def zone(monkeypatch: pytest.MonkeyPatch, name: str) -> ZoneInfo:
    settings = get_settings().model_copy(update={"timezone": name})
    monkeypatch.setattr(data, "get_settings", lambda: settings)
    return ZoneInfo(name)


def test_tasks_are_counted_by_day_kind_and_state(users: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    zone(monkeypatch, "UTC")
    user, other = users
    now = datetime.now(UTC)
    yesterday = now - timedelta(days=1)
    add(user, State.SUCCEEDED, now, 1)
    add(user, State.SUCCEEDED, now, 2)
    add(user, State.FAILED, now, 50)
    add(user, State.RUNNING, now, kind="email")
    add(user, State.CANCELLED, yesterday, 3)
    add(user, State.SUCCEEDED, now - timedelta(days=7), 10)
    add(other, State.SUCCEEDED, now, 4)
    add(None, State.QUEUED, now)

    own = data.collect("x", 7, everyone=False, user=user)
    assert list(own.days) == [now.date() - timedelta(days=days) for days in range(6, -1, -1)]
    assert {day: count.states for day, count in own.days.items() if any(count.states)} == {
        yesterday.date(): (0, 0, 1, 0),
        now.date(): (2, 1, 0, 1),
    }
    assert {name: count.figures for name, count in own.kinds.items()} == {
        "email": (1, 0, 0, 0, 1, None, None),
        "sleep": (4, 2, 1, 1, 0, pytest.approx(2 / 3), pytest.approx(1.5)),
    }
    assert list(own.days_and_kinds) == [(yesterday.date(), "sleep"), (now.date(), "email"), (now.date(), "sleep")]
    assert own.total.states == (2, 1, 1, 1)

    assert data.collect("x", 8, everyone=False, user=user).total.succeeded == 3
    assert data.collect("x", 7, everyone=True, user=user).total.states == (3, 1, 1, 2)
    assert data.collect("x", 7, everyone=False, user=uuid4()).total.states == (0, 0, 0, 0)


@pytest.mark.parametrize("name", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"])
def test_a_day_is_one_of_the_settings_time_zone(
    name: str, users: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = zone(monkeypatch, name)
    midnight = datetime.now(here).replace(hour=0, minute=0, second=0, microsecond=0)
    add(users[0], State.SUCCEEDED, midnight, 1)
    add(users[0], State.FAILED, midnight - timedelta(microseconds=1), 1)
    made = data.collect("x", 2, everyone=False, user=users[0])
    assert [count.states for count in made.days.values()] == [(0, 1, 0, 0), (1, 0, 0, 0)]
    assert data.collect("x", 1, everyone=False, user=users[0]).total.states == (1, 0, 0, 0)


def test_both_files_are_stored_with_the_task(users: tuple[UUID, UUID]) -> None:
    user = users[0]
    add(user, State.SUCCEEDED, datetime.now(UTC), 1)
    task_id = add(
        user, State.QUEUED, datetime.now(UTC), kind="report", queue=CPU_QUEUE, arguments={"title": "=Über 報"}
    )
    runner.run(task_id)
    with db.session() as session:
        task = session.get_one(Task, task_id)
        assert task.state == State.SUCCEEDED, task.error
        assert task.result is not None
        results = task.result["files"]
        stored = [files.open_file(session, UUID(each["id"])) for each in results]
    try:
        for file, result in zip(stored, results, strict=True):
            assert (file.owner_id, file.task_id, file.purpose) == (user, task_id, "report")
            assert (file.name, file.size) == (result["name"], result["size"])
            assert result["url"] == f"/static/upload/{file.id}/{file.name}"
        document, workbook = (b"".join(get_storage().get(file.key)) for file in stored)
    finally:
        for file in stored:
            get_storage().delete(file.key)
        with db.session() as session, session.begin():
            session.execute(delete(File).where(File.task_id == task_id))
    assert "=Über ?" in PdfReader(BytesIO(document)).pages[0].extract_text()
    title = openpyxl.load_workbook(BytesIO(workbook))["Summary"]["A1"]
    assert (title.value, title.data_type) == ("=Über 報", "s")
