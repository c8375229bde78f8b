"""Results that are sent together: each task has its own answer."""

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from celery import Celery
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from fba_app.results import MOST, STORE, Batches, ResultBackend

Execute = Callable[[list[bytes]], list[Any]]


class Client:
    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def register_script(self, script: str) -> Callable[..., list[Any]]:
        assert script == STORE
        return self._store

    def _store(self, *, keys: list[bytes], args: list[Any]) -> list[Any]:
        assert args == ["{}", 60] * len(keys)
        return self._execute(keys)


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


def test_one_batch_is_no_larger_than_redis_takes_in_one_go() -> None:
    sent: list[int] = []
    begun, answered = threading.Event(), threading.Event()

    def execute(keys: list[bytes]) -> list[Any]:
        sent.append(len(keys))
        begun.set()
        answered.wait(10)
        return [1] * len(keys)

    tasks = Tasks(batches_of(execute))
    tasks.begin("first")
    assert begun.wait(10)
    tasks.begin(*(str(number) for number in range(MOST + 5)))
    until(lambda: tasks.all_wait(MOST + 5))
    answered.set()
    tasks.join()
    assert sent == [1, MOST, 5]
    assert set(tasks.outcomes.values()) == {None}


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "RETRY", "STARTED"])
def test_what_is_kept_of_a_task_is_what_celery_keeps(state: str, *, extended: bool) -> None:
    app = Celery(set_as_current=False)
    app.conf.result_extended = extended
    backend = ResultBackend(app=app, url="redis://127.0.0.1:1")
    request = Context(id="id", task="name", group="group", parent_id="parent")
    request.children.append(app.AsyncResult("child"))
    found = backend._get_result_meta("result", state, "traceback", request)
    wanted = RedisBackend._get_result_meta(backend, "result", state, "traceback", request)
    assert bool(found.pop("date_done")) == bool(wanted.pop("date_done")) == (state in ("SUCCESS", "FAILURE"))
    assert found == wanted
    assert found["children"] == [(("child", None), None)]


def test_that_a_task_comes_again_is_kept_only_where_somebody_wants_to_know() -> None:
    backend = ResultBackend(app=Celery(set_as_current=False), url="redis://127.0.0.1:1")
    with patch.object(backend, "store_result") as stored:
        backend.mark_as_retry("id", None, request=Context(ignore_result=True))
        stored.assert_not_called()
        backend.mark_as_retry("id", None, request=Context(ignore_result=False))
        stored.assert_called_once()
