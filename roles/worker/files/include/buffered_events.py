"""Send the events of tasks, which Flower shows, many in one message.

Celery does so where it has an event loop of its own, with prefork pools. With the others each event is a message that the broker has to
confirm, three for each task, and a fast pool spends most of its time on them. What is lost when a worker is killed is what Flower would
have shown of the last fifth of a second. They are compressed, to a tenth: the broker's work is by the byte.

That a task has begun is told together with its end, if that comes before the next message: a third of the events, which Flower has to look
at one by one, says nothing then that the end cannot say too.

Celery imports this before the worker connects (`--include`), and makes its dispatcher of events from the class that is named here.
"""

import threading
import time
from typing import Any

from celery import bootsteps, current_app
from celery.events.dispatcher import EventDispatcher
from celery.utils.time import utcoffset

# Seconds that an event waits for others, and how many are sent in any case
INTERVAL = 0.2
LIMIT = 1000

# The last that is heard of an attempt. Celery's own receiver takes a field `started` for the time of the event of that name
ENDS = ("task-succeeded", "task-failed", "task-retried")


class BufferedDispatcher(EventDispatcher):
    """Celery's dispatcher of events, with its buffer for the events of tasks also where no event loop empties it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._flusher: threading.Timer | None = None
        # By task: that it has begun, which nobody was told yet
        self._begun: dict[str, dict[str, Any]] = {}
        if not options.get("buffer_group"):
            options |= {"buffer_group": ["task"], "buffer_limit": LIMIT, "on_send_buffered": self._flush_soon}
        super().__init__(*arguments, **options)
        self._about = self._same()

    def enable(self) -> None:
        """Begin to send."""
        super().enable()
        self.producer.compression = "zlib"

    def send(self, type: str, **fields: Any) -> None:
        """Send an event; of tasks, with the next message."""
        wanted = self.enabled and (not self.groups or "task" in self.groups)
        if not (wanted and type.startswith("task-") and "task" in self.buffer_group):
            super().send(type, **fields)
            return
        # The event as Celery makes it, without what it asks anew for each
        fields |= {"type": type, "timestamp": time.time(), "clock": self.clock.forward(), **self._about}
        if type == "task-started":
            self._begun[fields["uuid"]] = fields
        else:
            if type in ENDS and (begun := self._begun.pop(fields["uuid"], None)):
                fields["started"] = begun["timestamp"]
            self._group_buffer["task"].append(fields)
        if len(self._group_buffer["task"]) >= self.buffer_limit:
            self.flush()
        elif self.on_send_buffered:
            self.on_send_buffered()

    def flush(self, *arguments: Any, **options: Any) -> None:
        """Send what waits."""
        self._group_buffer["task"].extend(self._begun.values())
        self._begun.clear()
        self._about = self._same()
        super().flush(*arguments, **options)

    def close(self) -> None:
        """Send what is left, and close."""
        self.flush()
        super().close()

    def _same(self) -> dict[str, Any]:
        """Return what all events have in common until the next message."""
        return {"hostname": self.hostname, "utcoffset": utcoffset(), "pid": self.pid}

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
