"""When schedules are due, and what their requests may look like."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fba_app.schedules import times
from fba_app.schedules.routes import NewSchedule, ScheduleChange
from fba_app.schedules.times import next_run
from fba_app.settings import get_settings

BERLIN = "Europe/Berlin"
TASK = {"kind": "sleep", "arguments": {"duration": 1}}


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = get_settings().model_copy(update={"timezone": BERLIN})
    monkeypatch.setattr(times, "get_settings", lambda: settings)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def runs(crontab: str, after: str, count: int) -> Iterator[str]:
    moment = utc(after)
    for _ in range(count):
        moment = next_run(crontab, None, moment)
        yield moment.strftime("%m-%d %H:%M")


@pytest.mark.parametrize(
    ("every", "after", "due"),
    [
        (10, "2026-01-01T00:00:00", "2026-01-01T00:00:10"),
        (10, "2026-01-01T00:00:09.999999", "2026-01-01T00:00:10"),
        (3600, "2026-01-01T12:34:56", "2026-01-01T13:00:00"),
        (86400, "2026-01-01T00:00:00.5", "2026-01-02T00:00:00"),
    ],
)
def test_an_interval_is_aligned_to_the_clock(every: int, after: str, due: str) -> None:
    assert next_run(None, every, utc(after)) == utc(due)


@given(
    every=st.integers(10, 366 * 86400),
    first=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    later=st.floats(0, 1),
)
def test_whoever_computes_it_before_the_tick_gets_the_same_tick(every: int, first: datetime, later: float) -> None:
    due = next_run(None, every, first)
    assert first < due
    # Rounding may take it to the tick itself, which is not before.
    between = min(first + (due - first) * later, due.replace(microsecond=0))
    if between < due:
        assert next_run(None, every, between) == due


def test_a_crontab_is_by_the_time_zone(berlin: None) -> None:
    assert next_run("30 3 * * *", None, utc("2026-01-10T12:00:00")) == utc("2026-01-11T02:30:00")
    assert next_run("30 3 * * *", None, utc("2026-07-10T12:00:00")) == utc("2026-07-11T01:30:00")


def test_day_and_weekday_are_joined_as_cron_does() -> None:
    # The 13th, or any Friday.
    assert list(runs("0 0 13 * FRI", "2026-01-01T00:00:00", 4)) == [
        "01-02 00:00", "01-09 00:00", "01-13 00:00", "01-16 00:00"
    ]  # fmt: skip


def test_the_hour_that_is_left_out_runs_at_its_end(berlin: None) -> None:
    # On the 29th of March 2026, 2:00 is 3:00.
    assert list(runs("30 2 * * *", "2026-03-27T12:00:00", 3)) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_the_hour_that_comes_twice_runs_once(berlin: None) -> None:
    # On the 25th of October 2026, 3:00 is 2:00 once more.
    assert list(runs("30 2 * * *", "2026-10-24T12:00:00", 2)) == ["10-25 00:30", "10-26 01:30"]


def test_in_the_second_of_these_hours_nothing_past_is_due(berlin: None) -> None:
    assert list(runs("30 2 * * *", "2026-10-25T01:10:00", 1)) == ["10-26 01:30"]


def test_what_goes_by_the_hour_runs_in_both(berlin: None) -> None:
    assert list(runs("0 * * * *", "2026-10-24T23:30:00", 3)) == ["10-25 00:00", "10-25 01:00", "10-25 02:00"]


def test_a_rare_day_is_found() -> None:
    assert next_run("0 0 29 2 *", None, utc("2096-03-01T00:00:00")) == utc("2104-02-29T00:00:00")


@pytest.mark.parametrize(
    "crontab",
    [
        "0 0 30 2 *", "0 0 31 4,6,9,11 *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
        "*/0 * * * *", "5-1 * * * *", "x * * * *", "* * * *", "* * * * * *", "", " ", "@daily", "* * * *  *",
        "* * * * *\n",         "1,,2 * * * *", "-1 * * * *", "\0 * * * *", "٣ * * * *", "* * * * " + "1," * 100 + "1",
    ],
)  # fmt: skip
def test_a_crontab_that_is_wrong_or_never_comes_true_is_refused(crontab: str) -> None:
    with pytest.raises(ValidationError, match="crontab"):
        NewSchedule.model_validate({"name": "x", "task": TASK, "crontab": crontab})


@given(st.from_regex(r"\A[0-9A-Za-z*,/#-]{1,8}( [0-9A-Za-z*,/#-]{1,8}){4}\Z"))
def test_any_text_is_either_a_crontab_or_a_fault(crontab: str) -> None:
    after = utc("2026-01-01T00:00:00")
    with suppress(ValueError):
        assert next_run(crontab, None, after) > after


def test_a_schedule_is_by_crontab_or_by_interval() -> None:
    by_crontab = NewSchedule.model_validate({"name": "x", "task": TASK, "crontab": "*/5 8-17 * * mon-fri"})
    assert (by_crontab.enabled, by_crontab.every) == (True, None)
    assert by_crontab.task.kind == "sleep"
    assert NewSchedule.model_validate({"name": "x", "task": TASK, "every": 10}).every == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"crontab": "* * * * *", "every": 60},
        {"crontab": None, "every": None},
        {"every": 9},
        {"every": 366 * 86400 + 1},
        {"every": 60.0},
        {"every": "60"},
        {"every": True},
        {"every": 60, "enabled": "yes"},
        {"every": 60, "name": ""},
        {"every": 60, "name": "x" * 256},
        {"every": 60, "name": "\0"},
        {"every": 60, "task": {"kind": "sleep", "arguments": {}}},
        {"every": 60, "task": {"kind": "sleep", "arguments": {"duration": -1}}},
        {"every": 60, "task": {"kind": "nothing", "arguments": {}}},
        {"every": 60, "task": None},
        {"every": 60, "colour": "red"},
    ],
)
def test_a_wrong_schedule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewSchedule.model_validate({"name": "x", "task": TASK} | wrong)


def test_a_change_may_be_of_anything_but_not_to_both_times() -> None:
    assert ScheduleChange.model_validate({}).model_dump(exclude_none=True) == {}
    assert ScheduleChange.model_validate({"enabled": False}).enabled is False
    with pytest.raises(ValidationError):
        ScheduleChange.model_validate({"crontab": "* * * * *", "every": 60})
    with pytest.raises(ValidationError):
        ScheduleChange.model_validate({"kind": "sleep"})
