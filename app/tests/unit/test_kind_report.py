"""The kind `report`: the documents, from counts that a test makes up."""

import asyncio
import re
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import openpyxl
import pytest
from pydantic import ValidationError
from pypdf import PdfReader

from fba_app.files import service as files_service
from fba_app.kinds.report import PDF, XLSX, ReportArguments, data, pdf, report, xlsx
from fba_app.kinds.report.data import Count, Report
from fba_app.problems import ForbiddenError
from fba_app.tasks import progress
from fba_app.tasks.context import CancelledError, TaskContext
from fba_app.tasks.registry import CPU_QUEUE, KINDS
from fba_app.users.principal import Permission, Principal

LAST = date(2030, 1, 31)
MADE_AT = datetime(2030, 1, 31, 12, 30, tzinfo=UTC)


def go_on() -> None:
    pass


def counted(days: int, kinds: tuple[str, ...] = ("email", "sleep"), title: str = "Tasks") -> Report:
    first = LAST - timedelta(days=days - 1)
    every_day = [first + timedelta(days=number) for number in range(days)]
    each = Count(succeeded=3, failed=1, cancelled=2, not_done=4, seconds=4.5)

    def times(number: int) -> Count:
        succeeded, failed, cancelled, not_done = (number * value for value in each.states)
        return Count(succeeded, failed, cancelled, not_done, number * each.seconds)

    return Report(
        title=title,
        scope="Own tasks",
        made_at=MADE_AT,
        first=first,
        last=LAST,
        days={day: times(len(kinds)) for day in every_day},
        kinds={name: times(days) for name in kinds},
        days_and_kinds={(day, name): each for day in every_day for name in kinds},
        total=times(days * len(kinds)),
    )


def text_of(content: bytes) -> list[str]:
    return [page.extract_text() for page in PdfReader(BytesIO(content)).pages]


def test_counts() -> None:
    count = Count()
    assert list(count.figures) == [0, 0, 0, 0, 0, None, None]
    for state in ("queued", "running", "waiting", "retrying", "cancelled"):
        count.add(state, 1, 100.0)
    assert list(count.figures) == [5, 0, 0, 1, 4, None, None]
    count.add("succeeded", 3, 4.5)
    count.add("failed", 1, 100.0)
    assert list(count.figures) == [9, 3, 1, 1, 4, 0.75, 1.5]


def test_the_pdf_has_it_all() -> None:
    content = pdf.make(counted(30), go_on)
    pages = text_of(content)
    assert content.startswith(b"%PDF-")
    assert len(pages) > 1
    assert "Own tasks, 2030-01-02 to 2030-01-31" in pages[0]
    for number, page in enumerate(pages, 1):
        assert f"Page {number}" in page
        assert "Made 2030-01-31 12:30 UTC" in page
        assert "Mean time" in page, "the headings are on every page"
    whole = "\n".join(pages)
    for day in counted(30).days:
        assert re.search(rf"{day}\s+email\s+10\s+3\s+1\s+2\s+4\s+75.0%\s+1.50 s", whole)
    # The table of kinds: 30 times as many as in a day, and both kinds together.
    assert re.search(r"sleep\s+300\s+90\s+30\s+60\s+120\s+75.0%\s+1.50 s", whole)
    assert re.search(r"All\s+600\s+180\s+60\s+120\s+240\s+75.0%\s+1.50 s", whole)
    assert "Cancelled" in pages[0]


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Überblick für März: 5 €", "Überblick für März: 5 €"),
        ("Việt Nam, Ţară", "Viet Nam, Tara"),
        ("Отчёт 報告", "????? ??"),
        ("🙂", "?"),
        ('<b>bold</b> & <img src="http://127.0.0.1:1/x.png"/>', '<b>bold</b> & <img src="http://127.0.0.1:1/x.png"/>'),
        ("&lt;", "&lt;"),
        ("W" * 255, "W" * 255),
    ],
)
def test_any_title_can_be_printed(title: str, shown: str) -> None:
    content = pdf.make(counted(1, title=title), go_on)
    text = text_of(content)[0]
    assert re.sub(r"\s", "", text).count(re.sub(r"\s", "", shown)) == 1
    metadata = PdfReader(BytesIO(content)).metadata
    assert metadata is not None
    assert metadata.title == title


def test_a_long_name_stays_in_its_column() -> None:
    assert (
        "a_name_of_a_kind_tha\nt_is_long" in text_of(pdf.make(counted(1, ("a_name_of_a_kind_that_is_long",)), go_on))[0]
    )


@pytest.mark.parametrize(
    ("highest", "step"), [(0, 1), (5, 1), (6, 2), (10, 2), (11, 5), (26, 10), (1945, 500), (2501, 1000)]
)
def test_the_axis_has_round_numbers(highest: int, step: int) -> None:
    assert pdf._step(highest, 5) == step


def test_without_tasks_there_is_a_report_all_the_same() -> None:
    nothing = counted(365, ())
    assert "No tasks in these days." in text_of(pdf.make(nothing, go_on))[0]
    book = openpyxl.load_workbook(BytesIO(xlsx.make(nothing)))
    assert [cell.value for cell in book["Summary"][6]][:6] == ["All", 0, 0, 0, 0, 0]
    assert book["Days"].max_row == 366
    assert book["Days and kinds"].max_row == 1


def test_the_pdf_can_be_cancelled_at_each_page() -> None:
    calls = iter([None, None, CancelledError()])

    def check() -> None:
        if error := next(calls):
            raise error

    with pytest.raises(CancelledError):
        pdf.make(counted(365), check)


def test_the_workbook_has_it_all() -> None:
    made = counted(30)
    book = openpyxl.load_workbook(BytesIO(xlsx.make(made)))
    summary, days, both = book["Summary"], book["Days"], book["Days and kinds"]
    assert [summary.cell(row, 1).value for row in (1, 2, 3)] == [made.title, made.subtitle, "Made 2030-01-31 12:30 UTC"]
    assert [cell.value for cell in summary[7]] == ["sleep", 300, 90, 30, 60, 120, 0.75, 1.5]
    assert [cell.value for cell in days[1]][1:] == list(data.HEADINGS)
    assert [days.cell(row, 1).value.date() for row in range(2, 32)] == list(made.days)
    assert [cell.value for cell in both[2]][1:] == ["email", 10, 3, 1, 2, 4, 0.75, 1.5]
    assert both.max_row == 61
    assert days.freeze_panes == "A2"
    chart = summary._charts[0]
    assert [series.val.numRef.f for series in chart.series] == [f"Days!${c}$2:${c}$31" for c in "CDEF"]


@pytest.mark.parametrize(
    "title", ["=1+1", "{=1+1}", "@SUM(A1)", "+1", "-1", "http://example.com", "=HYPERLINK('x')", "<&>"]
)
def test_text_in_the_workbook_is_text(title: str) -> None:
    book = openpyxl.load_workbook(BytesIO(xlsx.make(counted(1, (title,), title))))
    for cell in (book["Summary"]["A1"], book["Summary"]["A6"], book["Days and kinds"]["B2"]):
        assert (cell.value, cell.data_type, cell.hyperlink) == (title, "s", None)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is stored, instead of storing it."""
    files: list[tuple[Any, ...]] = []

    def store_file(context: TaskContext, name: str, content_type: str, purpose: str, chunks: list[bytes]) -> Any:
        files.append((context, name, content_type, purpose, b"".join(chunks)))
        return SimpleNamespace(id=UUID(int=len(files)), name=name, size=len(files[-1][-1]))

    monkeypatch.setattr(files_service, "store_file", store_file)
    monkeypatch.setattr(progress, "write", lambda *_: None)
    return files


@pytest.mark.parametrize(("form", "types"), [("pdf", [PDF]), ("xlsx", [XLSX]), ("both", [PDF, XLSX])])
def test_it_stores_what_was_asked_for(
    form: str, types: list[str], stored: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    user, asked = uuid4(), []

    def collect(title: str, days: int, *, everyone: bool, user: UUID | None) -> Report:
        asked.append((title, days, everyone, user))
        return counted(days, title=title)

    monkeypatch.setattr(data, "collect", collect)
    context = TaskContext(uuid4(), submitted_by=user)
    result = report(context, ReportArguments.model_validate({"title": "Tasks", "days": 7, "format": form}))
    assert asked == [("Tasks", 7, False, user)]
    assert [(each[0], each[2], each[3]) for each in stored] == [
        (context, content_type, "report") for content_type in types
    ]
    for file, (_, name, _, _, content) in zip(result.files, stored, strict=True):
        assert file.name == name == f"report-2030-01-31.{'pdf' if content.startswith(b'%PDF') else 'xlsx'}"
        assert file.url == f"/static/upload/{file.id}/{name}"
        assert file.size == len(content)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"title": ""},
        {"title": "x" * 256},
        {"title": "two\nlines"},
        {"title": "\x00"},
        {"title": "\uffff"},
        {"title": "\ud800"},
        {"title": "x", "days": 0},
        {"title": "x", "days": 366},
        {"title": "x", "days": "30"},
        {"title": "x", "format": "docx"},
        {"title": "x", "scope": "other"},
        {"title": "x", "more": 1},
    ],
)
def test_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReportArguments.model_validate(arguments)


def test_only_those_who_may_see_all_tasks_get_a_report_on_all() -> None:
    kind = KINDS["report"]
    assert kind.queue == CPU_QUEUE
    assert kind.check is not None
    session = cast("Any", None)
    user = Principal(uuid4(), "user", frozenset({Permission.TASKS_SUBMIT}), "session", "127.0.0.1")
    manager = Principal(uuid4(), "manager", frozenset({Permission.TASKS_MANAGE}), "session", "127.0.0.1")
    asyncio.run(kind.check(session, user, ReportArguments(title="x")))  # type: ignore[arg-type]
    asyncio.run(kind.check(session, manager, ReportArguments(title="x", scope="all")))  # type: ignore[arg-type]
    with pytest.raises(ForbiddenError, match="tasks:manage"):
        asyncio.run(kind.check(session, user, ReportArguments(title="x", scope="all")))  # type: ignore[arg-type]
