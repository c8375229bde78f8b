"""Where Celery keeps the results of tasks."""

from typing import Any

# Celery hides that this cannot be imported (it wants kombu's extra dependencies) and then never tries Redis again after
# an error. Here it fails at once.
import kombu.transport.redis  # noqa: F401
from celery.backends.redis import RedisBackend
from redis import BlockingConnectionPool

from fba_app.keepalive import SOCKET_OPTIONS


class ResultBackend(RedisBackend):  # type: ignore[misc]
    """Celery's Redis backend for a process of a thousand greenlets and a server that never waits for a result."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.connparams["socket_keepalive_options"] = SOCKET_OPTIONS

    @property
    def ConnectionPool(self) -> type[BlockingConnectionPool]:  # noqa: N802
        """A pool in which the next task waits for a connection; the default one raises as soon as none is free."""
        return BlockingConnectionPool

    def on_task_call(self, producer: object, task_id: str) -> None:
        """Do not subscribe to the result of a task that is being published.

        Celery does so for the case that the publisher waits. It makes publishing fail with Redis, which has no part in
        it, and costs a round trip. Whoever does wait for a result subscribes at that point.
        """
