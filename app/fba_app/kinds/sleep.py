"""The kind `sleep`: the simplest one, to try the stack with."""

import time

from pydantic import Field

from fba_app.settings import Settings, get_settings
from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import IO_QUEUE, kind
from fba_app.types import Model

LONGEST = get_settings().longest_sleep


class SleepArguments(Model):
    """How long to wait."""

    duration: int = Field(strict=True, ge=0, le=LONGEST, description="Seconds.", examples=[min(5, LONGEST)])


class SleepResult(Model):
    """What is left of it."""

    message: str = Field(examples=["Task completed in 5 seconds!"])


def _unavailable(settings: Settings) -> str | None:
    return None if settings.run_task_enabled else "RUN_TASK_ENABLED is not set"


# The settings make sure that this is longer than the longest sleep.
@kind("sleep", queue=IO_QUEUE, time_limit=get_settings().soft_time_limit, unavailable=_unavailable)
def sleep(context: TaskContext, arguments: SleepArguments) -> SleepResult:
    """Wait for some seconds, and say each second how far it has come."""
    start = time.monotonic()
    for second in range(arguments.duration):
        context.progress(100 * second / arguments.duration, f"{second} of {arguments.duration} seconds")
        # Until a moment, not for a second: what reporting takes must not add up.
        context.sleep(start + second + 1 - time.monotonic())
    context.progress(100, "done")
    return SleepResult(message=f"Task completed in {arguments.duration} seconds!")
