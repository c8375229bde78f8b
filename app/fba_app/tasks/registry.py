"""The kinds of tasks: what each takes and gives, where it runs, and how often it is tried.

@kind("thumbnail", queue=CPU_QUEUE, time_limit=60, max_attempts=3, retry_on=(TimeoutError,))
def thumbnail(context: TaskContext, arguments: ThumbnailArguments) -> ThumbnailResult: ...
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pydantic import BaseModel

from fba_app.settings import Settings

if TYPE_CHECKING:
    # Not at run time: the health check of the workers imports this each time that it asks
    from sqlalchemy.ext.asyncio import AsyncSession

    from fba_app.tasks.context import TaskContext
    from fba_app.users.principal import Principal

Arguments = TypeVar("Arguments", bound=BaseModel)

IO_QUEUE = "io"
"""For tasks that wait: thousands run at once in one process."""

CPU_QUEUE = "cpu"
"""For tasks that compute: one such task would stall every task that waits in the same process."""


@dataclass(frozen=True)
class FanOut:
    """What a task returns to split itself into parts. They run anywhere; then it is called again with their results."""

    kind: str
    arguments: Sequence[BaseModel]


@dataclass(frozen=True)
class Kind:
    """A kind of task."""

    name: str
    queue: str
    arguments: type[BaseModel]
    run: "Callable[[TaskContext, Any], BaseModel | FanOut]"
    description: str
    time_limit: int
    """Seconds; the task is told to stop, and ended half a minute later."""
    max_attempts: int
    """After so many the task has failed, whether it raised or took its worker with it."""
    retry_on: tuple[type[Exception], ...]
    """What a later attempt may not meet again. Anything else fails the task at once."""
    backoff: float
    """Seconds before the second attempt; doubled for each further one, up to ten minutes."""
    public: bool
    """Whether users may submit it, or only other tasks."""
    check: "Callable[[AsyncSession, Principal, Any], Awaitable[None]] | None"
    """Refuses arguments that this user may not use, such as another user's file: raises a ProblemError."""
    unavailable: Callable[[Settings], str | None]
    """Why it cannot be run in this deployment."""

    def backoff_after(self, attempt: int) -> float:
        """Seconds to wait after this attempt, from 1."""
        return min(self.backoff * 2.0 ** (attempt - 1), 600.0)


KINDS: dict[str, Kind] = {}

Function = TypeVar("Function", bound=Callable[..., BaseModel | FanOut])


def kind(
    name: str,
    *,
    queue: str,
    time_limit: int,
    max_attempts: int = 3,
    retry_on: tuple[type[Exception], ...] = (),
    backoff: float = 2.0,
    public: bool = True,
    check: "Callable[[AsyncSession, Principal, Any], Awaitable[None]] | None" = None,
    unavailable: Callable[[Settings], str | None] = lambda _: None,
) -> Callable[[Function], Function]:
    """Register a function as a kind of task. Its second parameter's annotation is the model of its arguments."""

    def register(function: Function) -> Function:
        parameter = list(inspect.signature(function).parameters)[1]
        KINDS[name] = Kind(
            name=name,
            queue=queue,
            arguments=get_type_hints(function)[parameter],
            run=function,
            description=inspect.getdoc(function) or "",
            time_limit=time_limit,
            max_attempts=max_attempts,
            retry_on=retry_on,
            backoff=backoff,
            public=public,
            check=check,
            unavailable=unavailable,
        )
        return function

    return register
