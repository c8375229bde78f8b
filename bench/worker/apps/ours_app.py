"""Filling the queues of the stack's own application."""

import celery_queue
from fba_app.bench import app
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE


def submit(kind: str, count: int, rate: float) -> None:
    """Publish so many tasks of a kind."""
    celery_queue.submit(app, kind, count, rate, queue=CPU_QUEUE if kind == "cpu" else IO_QUEUE)


def purge() -> None:
    """Forget what waits."""
    celery_queue.purge(app, [IO_QUEUE, CPU_QUEUE])
