"""Send the events of tasks, which Flower shows, many in one message.

Celery does so where it has an event loop of its own, with prefork pools. With the others each event is a message that the broker has to
confirm, three for each task, and a fast pool spends most of its time on them. What is lost when a worker is killed is what Flower would
have shown of the last fifth of a second. They are compressed, to a tenth: the broker's work is by the byte.

Celery imports this before the worker connects (`--include`), and makes its dispatcher of events from the class that is named here.
"""

import threading
from typing import Any

from celery import bootsteps, current_app
from celery.events.dispatcher import EventDispatcher

# Seconds that an event waits for others, and how many are sent in any case
INTERVAL = 0.2
LIMIT = 1000


class BufferedDispatcher(EventDispatcher):
    """Celery's dispatcher of events, with its buffer for the events of tasks also where no event loop empties it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._flusher: threading.Timer | None = None
        if not options.get("buffer_group"):
            options |= {"buffer_group": ["task"], "buffer_limit": LIMIT, "on_send_buffered": self._flush_soon}
        super().__init__(*arguments, **options)

    def enable(self) -> None:
        """Begin to send."""
        super().enable()
        self.producer.compression = "zlib"

    def close(self) -> None:
        """Send what is left, and close."""
        self.flush()
        super().close()

    def _flush_soon(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Timer(INTERVAL, self._flush)
            self._flusher.daemon = True
            self._flusher.start()

    def _flush(self) -> None:
        # First, so that an event which comes meanwhile is not left without a flush
        self._flusher = None
        self.flush()


class LastEvents(bootsteps.StartStopStep):
    """Sends what is left when a worker ends: Celery closes the connection before the dispatcher."""

    requires = ("celery.worker.consumer:Events",)

    def shutdown(self, c: Any) -> None:
        """Runs once all tasks have ended."""
        if c.event_dispatcher:
            c.event_dispatcher.flush()


current_app.events.dispatcher_cls = BufferedDispatcher
current_app.steps["consumer"].add(LastEvents)
