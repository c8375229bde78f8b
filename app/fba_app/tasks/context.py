"""What a running task knows, and what it can say."""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from fba_app.tasks import progress


class CancelledError(Exception):
    """Someone asked for the task to end."""


class TimeLimitError(Exception):
    """The task has taken all the time that its kind has."""


class ClaimLostError(Exception):
    """Another attempt has the task: this one was silent for too long. It must end without an effect."""


class TaskContext:
    """One attempt of one task. One that calls neither `progress` nor `check` every few seconds cannot be cancelled."""

    def __init__(
        self,
        id: UUID,  # noqa: A002
        *,
        attempt: int = 1,
        time_limit: float = 600.0,
        submitted_by: UUID | None = None,
        checkpoint: dict[str, Any] | None = None,
        parts: list[dict[str, Any]] | None = None,
        save: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.submitted_by = submitted_by
        self.checkpoint = checkpoint or {}
        """What an earlier attempt saved."""
        self.parts = parts
        """The results of the parts that an earlier run split the task into, in their order."""
        self.on_success: list[Callable[[Session], None]] = []
        """Each is called in the transaction that makes the task succeed: with it happens what it adds, or neither."""
        self._save = save
        self._deadline = time.monotonic() + time_limit
        self._stop = threading.Event()
        self._reason: type[Exception] = CancelledError
        self._written = (0.0, -1.0)

    def stop(self, reason: type[Exception]) -> None:
        """Make the next `check` raise this."""
        self._reason = reason
        self._stop.set()

    def check(self) -> None:
        """Return if the task may go on.

        Raises:
            CancelledError, TimeLimitError, ClaimLostError: it may not.
        """
        if self._stop.is_set():
            raise self._reason(f"task {self.id}")
        if time.monotonic() > self._deadline:
            raise TimeLimitError(f"task {self.id}")

    def progress(self, percent: float, message: str = "") -> None:
        """Say how much is done, from 0 to 100, and `check`. Twice a second at most reaches whoever watches."""
        self.check()
        now = time.monotonic()
        written_at, written = self._written
        if percent != written and (now - written_at >= 0.5 or percent >= 100):
            progress.write(self.id, percent, message)
            self._written = (now, percent)

    def sleep(self, seconds: float) -> None:
        """Wait, and wake up to raise when the task shall end. Raises as `check` does."""
        self._stop.wait(max(0.0, min(seconds, self._deadline - time.monotonic())))
        self.check()

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a later attempt wants to know, now, whatever becomes of this one."""
        self._save(checkpoint)
        self.checkpoint = checkpoint
