"""What a running task can say and hear."""

import asyncio
import threading
import time
from uuid import UUID, uuid4

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

import fba_app.kinds  # noqa: F401
from fba_app import cache
from fba_app.tasks import progress, service
from fba_app.tasks.context import CancelledError, TaskContext, TimeLimitError
from fba_app.tasks.models import State, Task
from fba_app.tasks.registry import KINDS


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """The progress that reached Redis."""
    lines: list[tuple[float, str]] = []

    def write(_: UUID, percent: float, message: str) -> None:
        lines.append((percent, message))

    monkeypatch.setattr(progress, "write", write)
    return lines


def test_progress_that_comes_fast_is_thinned_out_but_its_end_is_not(written: list[tuple[float, str]]) -> None:
    context = TaskContext(uuid4())
    for percent in range(100):
        context.progress(percent, "on the way")
    context.progress(100, "there")
    assert written[0] == (0, "on the way")
    assert written[-1] == (100, "there")
    assert len(written) < 10


def test_a_task_that_shall_end_hears_of_it_at_its_next_word(written: list[tuple[float, str]]) -> None:
    context = TaskContext(uuid4())
    context.stop(CancelledError)
    for call in (context.check, lambda: context.progress(1), lambda: context.sleep(0)):
        with pytest.raises(CancelledError):
            call()
    assert written == []


def test_a_sleeping_task_is_woken_to_end() -> None:
    context = TaskContext(uuid4())
    threading.Timer(0.1, context.stop, [CancelledError]).start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        context.sleep(30)
    assert time.monotonic() - started < 10


def test_a_task_sleeps_no_longer_than_its_time_limit() -> None:
    with pytest.raises(TimeLimitError):
        TaskContext(uuid4(), time_limit=0.1).sleep(30)


def test_a_task_goes_on_without_redis_and_does_not_ask_it_at_every_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    class Away:
        def set(self, *args: object, **_: object) -> None:
            asked.append(args)
            raise RedisConnectionError("away")

    monkeypatch.setattr(cache, "sync_client", Away)
    monkeypatch.setattr(progress, "_paused_until", 0.0)
    for percent in range(5):
        progress.write(uuid4(), percent, "")
    assert len(asked) == 1
    assert "away" in caplog.text


def test_what_is_done_is_not_kept_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be one more key in Redis for each task, and the task's state says it."""
    asked = []

    class Redis:
        def set(self, key: str, *_: object, **options: int) -> None:
            asked.append((key, options))

    monkeypatch.setattr(cache, "sync_client", Redis)
    monkeypatch.setattr(progress, "_paused_until", 0.0)
    task_id = uuid4()
    for percent in (99.9, 100):
        progress.write(task_id, percent, "")
    assert asked == [(f"progress:{task_id}", {"ex": progress.LIFETIME})]


def test_the_pause_before_another_attempt_doubles_and_has_an_end() -> None:
    kind = KINDS["email"]
    pauses = [kind.backoff_after(attempt) for attempt in range(1, 12)]
    assert pauses[1] == 2 * pauses[0]
    assert pauses[2] == 4 * pauses[0]
    assert pauses[-1] == 600


def test_a_task_in_parts_has_come_as_far_as_its_parts() -> None:
    """A whole pipeline may take less than a watcher's second, so what they see on the way is tested here."""
    waiting = Task(id=uuid4(), state=State.WAITING, parts=4, parts_left=3)
    done = Task(id=uuid4(), state=State.SUCCEEDED, parts=4, parts_left=0)
    assert asyncio.run(service.percent([waiting, done])) == {waiting.id: (25.0, "1 of 4 parts"), done.id: (100.0, "")}
