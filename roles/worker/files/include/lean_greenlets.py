"""Have a pool of greenlets do less for each task.

Celery's pool makes a second greenlet for each task, which only notes that the first has ended, a closure, and objects that refer to each
other, which only the garbage collector removes. The task's arguments are decoded twice: once where its message arrives, and once more
where it runs, as it must be in another process.

While Python's garbage collector looks at all that was imported, no greenlet runs. None of it ever goes, so it is kept from the collector
once the worker is ready.

Celery imports this before it makes the pool (`--include`), for pools of greenlets alone.
"""

import gc
from typing import Any

import gevent
from celery import current_app
from celery.concurrency import gevent as stock
from celery.signals import worker_init, worker_ready
from celery.worker import request
from gevent.pool import Pool
from greenlet import GreenletExit


def killable(target: Any, *arguments: Any, **more: Any) -> Any:
    """Call `target`; what is killed has no result."""
    try:
        return target(*arguments, **more)
    except GreenletExit:
        return (False, None, None)


class Job(gevent.Greenlet):
    """The greenlet of a task."""

    def terminate(self, signal: Any) -> None:
        """End nothing: the pool's `terminate_job` does, which Celery asks too."""


class Jobs(Pool):
    """The greenlets of all tasks."""

    greenlet_class = Job


class TaskPool(stock.TaskPool):
    """Celery's pool of greenlets, which finds the greenlet of a task when it is asked for, and keeps no record of them."""

    def on_start(self) -> None:
        """Make the pool."""
        self._pool = Jobs(self.limit)
        self._quick_put = self._pool.spawn

    def on_apply(
        self,
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        timeout: Any = None,
        timeout_callback: Any = None,
        **_options: Any,
    ) -> Job:
        """Run `target` in a greenlet of its own, and return that. Times are in seconds."""
        timeout = self.timeout if timeout is None else timeout
        return self._quick_put(
            stock.apply_timeout if timeout else stock.apply_target,
            killable,
            (target, *args),
            kwargs,
            callback,
            accept_callback,
            self.getpid,
            timeout=timeout,
            timeout_callback=timeout_callback,
        )

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """End the task whose greenlet has this number."""
        for job in self._pool:
            if id(job) == pid:
                gevent.kill(job)
                return


class Request(request.Request):
    """A task that has arrived, with its arguments decoded."""

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        if self._content_type:
            self._body = message.payload
            self._content_type = self._content_encoding = None


@worker_init.connect
def use(sender: Any, **_options: Any) -> None:
    """Have the worker make its pool and its requests from these."""
    sender.pool_cls = TaskPool
    current_app.Task.Request = Request


@worker_ready.connect
def keep_from_collector(**_options: Any) -> None:
    """Keep from the garbage collector what is there when the worker begins."""
    gc.collect()
    gc.freeze()
