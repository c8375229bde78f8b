"""Results that are sent together: each task has its own answer."""

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from celery import Celery
from celery.app.task import Context
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from fba_app.results import Batches, ResultBackend

Execute = Callable[[list[bytes]], list[Any]]


class Pipe:
    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._keys: list[bytes] = []

    def __enter__(self) -> "Pipe":  # noqa: D105
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        pass

    def eval(self, _script: str, _count: int, key: bytes, _value: str, _expires: int) -> None:
        self._keys.append(key)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return self._execute(self._keys)


class Client:
    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def pipeline(self, *, transaction: bool) -> Pipe:
        assert not transaction
        return Pipe(self._execute)


def batches_of(execute: Execute) -> Batches:
    return Batches(lambda: Client(execute))  # type: ignore[arg-type,return-value]


class Tasks:
    """Tasks that store a result each, in a thread each."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.outcomes: dict[str, BaseException | None] = {}
        self._threads: list[threading.Thread] = []

    def begin(self, *keys: str) -> None:
        for key in keys:
            thread = threading.Thread(target=self._store, args=[key])
            thread.start()
            self._threads.append(thread)

    def _store(self, key: str) -> None:
        try:
            self.batches.store(key.encode(), "{}", 60)
        except BaseException as error:
            self.outcomes[key] = error
        else:
            self.outcomes[key] = None

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=10)
            assert not thread.is_alive()

    def all_wait(self, count: int) -> bool:
        return len(self.batches._waiting) == count


def until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(1000):
        if condition():
            return
        waiting.wait(0.01)
    pytest.fail("not so after 10 s")


def test_what_comes_while_one_is_being_sent_goes_together() -> None:
    sent: list[list[bytes]] = []
    begun, answered = threading.Event(), threading.Event()

    def execute(keys: list[bytes]) -> list[Any]:
        sent.append(sorted(keys))
        begun.set()
        answered.wait(10)
        return [1] * len(keys)

    tasks = Tasks(batches_of(execute))
    tasks.begin("first")
    assert begun.wait(10)
    tasks.begin("a", "b", "c")
    until(lambda: tasks.all_wait(3))
    assert tasks.outcomes == {}
    answered.set()
    tasks.join()
    assert sent == [[b"first"], [b"a", b"b", b"c"]]
    assert tasks.outcomes == dict.fromkeys(["first", "a", "b", "c"])


def test_what_redis_says_of_one_result_is_no_matter_of_the_others() -> None:
    begun, answered = threading.Event(), threading.Event()

    def execute(keys: list[bytes]) -> list[Any]:
        begun.set()
        answered.wait(10)
        return [ResponseError("OOM") if key == b"large" else 1 for key in keys]

    tasks = Tasks(batches_of(execute))
    tasks.begin("first")
    assert begun.wait(10)
    tasks.begin("small", "large")
    until(lambda: tasks.all_wait(2))
    answered.set()
    tasks.join()
    assert isinstance(tasks.outcomes.pop("large"), ResponseError)
    assert tasks.outcomes == {"first": None, "small": None}


@pytest.mark.parametrize("end", [RedisConnectionError("away"), SystemExit()])
def test_a_batch_that_does_not_get_through_is_nobodys_result(end: BaseException) -> None:
    """Not even where the task that sends it is ended: the others have an error to try again for."""
    begun, ended = threading.Event(), threading.Event()
    fails = True

    def execute(keys: list[bytes]) -> list[Any]:
        if keys == [b"first"]:
            begun.set()
            ended.wait(10)
            return [1]
        if fails:
            raise end
        return [1] * len(keys)

    tasks = Tasks(batches_of(execute))
    tasks.begin("first")
    assert begun.wait(10)
    tasks.begin("a", "b", "c")
    until(lambda: tasks.all_wait(3))
    ended.set()
    tasks.join()
    assert tasks.outcomes.pop("first") is None
    kinds = sorted(type(outcome).__name__ for outcome in tasks.outcomes.values())
    assert kinds == sorted([type(end).__name__, "ConnectionError", "ConnectionError"])
    fails = False
    again = Tasks(tasks.batches)
    again.begin("a")
    again.join()
    assert again.outcomes == {"a": None}


def test_that_a_task_comes_again_is_kept_only_where_somebody_wants_to_know() -> None:
    backend = ResultBackend(app=Celery(set_as_current=False), url="redis://127.0.0.1:1")
    with patch.object(backend, "store_result") as stored:
        backend.mark_as_retry("id", None, request=Context(ignore_result=True))
        stored.assert_not_called()
        backend.mark_as_retry("id", None, request=Context(ignore_result=False))
        stored.assert_called_once()
