"""Where Celery keeps the results of tasks."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

# Celery hides that this cannot be imported (it wants kombu's extra dependencies) and then never tries Redis again after
# an error. Here it fails at once.
import kombu.transport.redis  # noqa: F401
from celery.backends.redis import RedisBackend
from redis import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from fba_app.keepalive import SOCKET_OPTIONS

STORE = """
local function succeeded(key)
    local present = redis.call('GET', key)
    if not present then
        return false
    end
    local decoded, meta = pcall(cjson.decode, present)
    return decoded and type(meta) == 'table' and meta.status == 'SUCCESS'
end

local function store(key, value, expires)
    if succeeded(key) then
        return 0
    end
    if tonumber(expires) > 0 then
        redis.call('SET', key, value, 'EX', expires)
    else
        redis.call('SET', key, value)
    end
    redis.call('PUBLISH', key, value)
    return 1
end

local answers = {}
for number, key in ipairs(KEYS) do
    local _, answer = pcall(store, key, ARGV[2 * number - 1], ARGV[2 * number])
    answers[number] = answer
end
return answers
"""
"""Keep results, and tell who waits for them. A task that has succeeded stays so, whatever comes of a second attempt.

The answer of each is a number, or the error that is its own.
"""

MOST = 100
"""How many results Redis takes at once; it answers nobody else meanwhile."""


class _Result:
    """A result on its way to Redis."""

    def __init__(self, key: bytes, value: str | bytes, expires: int) -> None:
        self.key = key
        self.arguments = (value, expires)
        self.stored = False
        self.error: Exception | None = None


class Batches:
    """Sends the results of tasks that end at the same time together; each task still waits for the answer to its own.

    Whoever comes while others are being sent waits, and the first of them sends for all. For threads and greenlets.
    """

    def __init__(self, client: Callable[[], Redis]) -> None:
        self._client = client
        self._waiting: deque[_Result] = deque()
        self._turn = threading.Lock()

    def store(self, key: bytes, value: str | bytes, expires: int) -> None:
        """Return when Redis has the result. `expires`: seconds that it stays, 0 for ever.

        Raises:
            redis.exceptions.RedisError: Redis does not have it, or has not said so.
        """
        result = _Result(key, value, expires)
        self._waiting.append(result)
        with self._turn:
            if not (result.stored or result.error):
                self._send()
        if result.error:
            raise result.error

    def _send(self) -> None:
        batch: list[_Result] = []
        while self._waiting and len(batch) < MOST:
            batch.append(self._waiting.popleft())
        try:
            store = self._client().register_script(STORE)
            arguments = [argument for result in batch for argument in result.arguments]
            answers = store(keys=[result.key for result in batch], args=arguments)
            for result, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    result.error = answer
                elif answer in (0, 1):
                    result.stored = True
        finally:
            # Also where this task alone is ended from outside: the others try again, as with a lost connection. Some
            # may be stored already, which does no harm.
            for result in batch:
                if not (result.stored or result.error):
                    result.error = RedisConnectionError("the batch of results did not get through")


class ResultBackend(RedisBackend):  # type: ignore[misc]
    """Celery's Redis backend for a process of a thousand greenlets and a server that never waits for a result."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.connparams["socket_keepalive_options"] = SOCKET_OPTIONS
        self._batches = Batches(lambda: self.client)
        self._extended = self.app.conf.find_value_for_key("extended", "result")

    @property
    def ConnectionPool(self) -> type[BlockingConnectionPool]:  # noqa: N802
        """A pool in which the next task waits for a connection; the default one raises as soon as none is free."""
        return BlockingConnectionPool

    def on_task_call(self, producer: object, task_id: str) -> None:
        """Do not subscribe to the result of a task that is being published.

        Celery does so for the case that the publisher waits. It makes publishing fail with Redis, which has no part in
        it, and costs a round trip. Whoever does wait for a result subscribes at that point.
        """

    def mark_as_retry(
        self,
        task_id: str,
        exc: Any,  # noqa: ANN401
        traceback: Any = None,  # noqa: ANN401
        request: Any = None,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Keep that a task comes again, unless nobody wants its result.

        Celery does not ask that, and says so of all that run when it loses the broker: one after the other, and with
        Redis away it would wait there for ever.
        """
        if getattr(request, "ignore_result", False):
            return None
        return super().mark_as_retry(task_id, exc, traceback, request=request, **options)

    def _get_result_meta(
        self,
        result: Any,  # noqa: ANN401
        state: str,
        traceback: Any,  # noqa: ANN401
        request: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return what is kept of a task: as Celery does, which looks up a setting for each of them."""
        if self._extended:
            return super()._get_result_meta(result, state, traceback, request, **options)
        meta: dict[str, Any] = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": self.app.now().isoformat() if state in self.READY_STATES else None,
        }
        if group := getattr(request, "group", None):
            meta["group_id"] = group
        if parent := getattr(request, "parent_id", None):
            meta["parent_id"] = parent
        return meta

    def _store_result(
        self,
        task_id: str,
        result: Any,  # noqa: ANN401
        state: str,
        traceback: Any = None,  # noqa: ANN401
        request: Any = None,  # noqa: ANN401
        **_kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Keep a result in one round trip: Celery asks first whether the task has succeeded already."""
        meta = {**self._get_result_meta(result=result, state=state, traceback=traceback, request=request)}
        self._set_with_state(self.get_key_for_task(task_id), self.encode({**meta, "task_id": task_id}), state)
        return result

    def _set(self, key: bytes, value: str | bytes, expires: int | None = None) -> None:
        self._batches.store(key, value, (self.expires if expires is None else expires) or 0)
