"""The kind `sleep`."""

import threading
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from fba_app.kinds.sleep import SleepArguments, sleep
from fba_app.settings import get_settings
from fba_app.tasks import progress
from fba_app.tasks.context import CancelledError, TaskContext
from fba_app.tasks.registry import IO_QUEUE, KINDS

Written = list[tuple[float, str]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    written: Written = []

    def write(task_id: UUID, percent: float, message: str) -> None:
        del task_id
        written.append((percent, message))

    monkeypatch.setattr(progress, "write", write)
    return written


def test_it_says_each_second_how_far_it_is(written: Written) -> None:
    result = sleep(TaskContext(uuid4()), SleepArguments(duration=2))
    assert result.message == "Task completed in 2 seconds!"
    assert written == [(0.0, "0 of 2 seconds"), (50.0, "1 of 2 seconds"), (100, "done")]


def test_no_time_at_all_is_fine(written: Written) -> None:
    assert sleep(TaskContext(uuid4()), SleepArguments(duration=0)).message == "Task completed in 0 seconds!"
    assert written == [(100, "done")]


def test_it_ends_at_once_when_cancelled(written: Written) -> None:
    context = TaskContext(uuid4())
    outcome: list[Exception] = []

    def run() -> None:
        try:
            sleep(context, SleepArguments(duration=get_settings().longest_sleep))
        except CancelledError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    context.stop(CancelledError)
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert outcome
    assert len(written) <= 1


@pytest.mark.parametrize("duration", [-1, get_settings().longest_sleep + 1, "5", True, 1.5, None])
def test_other_durations_are_refused(duration: object) -> None:
    with pytest.raises(ValidationError):
        SleepArguments.model_validate({"duration": duration})


def test_the_kind() -> None:
    kind = KINDS["sleep"]
    settings = get_settings()
    assert kind.queue == IO_QUEUE
    assert kind.time_limit > settings.longest_sleep
    assert kind.unavailable(settings) is None
    assert kind.unavailable(settings.model_copy(update={"run_task_enabled": False})) == "RUN_TASK_ENABLED is not set"
