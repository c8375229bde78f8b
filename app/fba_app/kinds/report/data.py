"""What a report shows: tasks counted in the database, by day and by kind."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Date, cast, extract, func, select

from fba_app import db
from fba_app.settings import get_settings
from fba_app.tasks.models import State, Task

STATES = (("Succeeded", "#2f855a"), ("Failed", "#c53030"), ("Cancelled", "#b7791f"), ("Not done", "#718096"))
"""What becomes of tasks, and its colour in charts."""

HEADINGS = ("Tasks", *(name for name, _ in STATES), "Success", "Mean time")
"""Of the figures of a `Count`."""

INK, GREY, RULE, STRIPE = "#1f2933", "#616e7c", "#cbd2d9", "#f5f7fa"


@dataclass
class Count:
    """How many tasks there were, and how long those that succeeded took."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    not_done: int = 0
    seconds: float = 0.0
    """In all."""

    def add(self, state: str, number: int, seconds: float) -> None:
        """Count so many more tasks, which took so long together."""
        match state:
            case State.SUCCEEDED:
                self.succeeded += number
                self.seconds += seconds
            case State.FAILED:
                self.failed += number
            case State.CANCELLED:
                self.cancelled += number
            case _:
                self.not_done += number

    @property
    def states(self) -> tuple[int, int, int, int]:
        """As in `STATES`."""
        return self.succeeded, self.failed, self.cancelled, self.not_done

    @property
    def success_rate(self) -> float | None:
        """From 0 to 1, of those that came to an end by themselves."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None

    @property
    def mean_duration(self) -> float | None:
        """Seconds."""
        return self.seconds / self.succeeded if self.succeeded else None

    @property
    def figures(self) -> tuple[int | float | None, ...]:
        """As in `HEADINGS`."""
        return sum(self.states), *self.states, self.success_rate, self.mean_duration


@dataclass(frozen=True)
class Report:
    """What every format shows."""

    title: str
    scope: str
    made_at: datetime
    first: date
    last: date
    days: dict[date, Count]
    """Each day from the first to the last, with or without tasks."""
    kinds: dict[str, Count]
    days_and_kinds: dict[tuple[date, str], Count]
    total: Count

    @property
    def subtitle(self) -> str:
        """Whose tasks, and of when."""
        return f"{self.scope}, {self.first} to {self.last}"

    @property
    def made(self) -> str:
        """When it was made, in words."""
        return f"Made {self.made_at:%Y-%m-%d %H:%M %Z}"


def _start(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time.min, zone)


def collect(title: str, days: int, *, everyone: bool, user: UUID | None) -> Report:
    """Count the tasks that were submitted today and on the days before it, in the settings' time zone."""
    zone = ZoneInfo(get_settings().timezone)
    now = datetime.now(zone)
    today = now.date()
    first = today - timedelta(days=days - 1)
    day = cast(func.timezone(zone.key, Task.created_at), Date)
    query = (
        select(day, Task.kind, Task.state, func.count(), func.sum(extract("epoch", Task.finished_at - Task.started_at)))
        .where(Task.created_at >= _start(first, zone), Task.created_at < _start(today + timedelta(days=1), zone))
        .group_by(day, Task.kind, Task.state)
        .order_by(day, Task.kind)
    )
    if not everyone:
        query = query.where(Task.submitted_by == user)
    with db.session() as session:
        rows = session.execute(query).all()

    by_day = {first + timedelta(days=number): Count() for number in range(days)}
    by_kind: dict[str, Count] = defaultdict(Count)
    by_both: dict[tuple[date, str], Count] = defaultdict(Count)
    total = Count()
    for of_day, of_kind, state, number, seconds in rows:
        for count in (by_day[of_day], by_kind[of_kind], by_both[of_day, of_kind], total):
            count.add(state, number, float(seconds or 0))
    return Report(
        title=title,
        scope="Everyone's tasks" if everyone else "Own tasks",
        made_at=now,
        first=first,
        last=today,
        days=by_day,
        kinds=dict(sorted(by_kind.items())),
        days_and_kinds=dict(by_both),
        total=total,
    )
