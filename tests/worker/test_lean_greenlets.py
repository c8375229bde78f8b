"""The pool of greenlets that does less for each task, and its requests."""

import gc
from typing import Any
from unittest.mock import MagicMock

import gevent
import pytest
from celery import Celery
from celery.concurrency.gevent import TaskPool as StockPool
from celery.signals import worker_ready
from celery.worker import request
from lean_greenlets import Request, TaskPool, use


@pytest.fixture(params=[StockPool, TaskPool], ids=["celery's", "ours"])
def pool(request: pytest.FixtureRequest) -> Any:
    pool = request.param(limit=3)
    pool.start()
    return pool


class Calls:
    """What a pool tells of a task."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.results: list[Any] = []
        self.timeouts: list[tuple[bool, float]] = []

    @property
    def options(self) -> dict[str, Any]:
        return {
            "accept_callback": lambda pid, _time: self.accepted.append(pid),
            "callback": self.results.append,
            "timeout_callback": lambda soft, timeout: self.timeouts.append((soft, timeout)),
        }


def test_a_task_runs_and_its_result_is_told(pool: Any) -> None:
    calls = Calls()
    job = pool.apply_async(lambda *words, **more: (0, words, more), args=("a", "b"), kwargs={"c": 1}, timeout=10, **calls.options)
    job.join(5)
    assert calls.results == [(0, ("a", "b"), {"c": 1})]
    assert calls.accepted == [id(job)]
    assert calls.timeouts == []


def test_a_task_that_takes_too_long_is_ended(pool: Any) -> None:
    calls = Calls()
    pool.apply_async(gevent.sleep, args=(10,), timeout=0.01, **calls.options).join(5)
    assert calls.timeouts == [(False, 0.01)]
    assert calls.results == []


def test_a_task_can_be_ended_by_its_number(pool: Any) -> None:
    calls, other = Calls(), Calls()
    job = pool.apply_async(gevent.sleep, args=(10,), timeout=20, **calls.options)
    beside = pool.apply_async(gevent.sleep, args=(0.05,), timeout=20, **other.options)
    gevent.sleep(0)
    pool.terminate_job(calls.accepted[0], 15)
    job.terminate(15)
    job.join(1)
    assert job.ready()
    assert calls.results == [(False, None, None)]
    beside.join(1)
    assert other.results == [None]
    pool.terminate_job(calls.accepted[0], 15)


def test_as_many_run_as_there_are_slots_also_when_the_pool_grows(pool: Any) -> None:
    running: list[int] = []

    def task() -> None:
        running.append(1)
        gevent.sleep(0.05)
        running.pop()

    def fill() -> None:
        for _ in range(6):
            pool.apply_async(task, callback=lambda _result: None)

    feeder = gevent.spawn(fill)
    gevent.sleep(0.01)
    assert len(running) == 3
    pool.grow(2)
    gevent.sleep(0.01)
    assert len(running) == 5
    feeder.join(1)
    pool.stop()
    assert running == []


def test_nothing_is_left_for_the_garbage_collector() -> None:
    pool = TaskPool(limit=1)
    pool.start()
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        job = pool.apply_async(lambda: (0, None, 0.0), callback=lambda _result: None, timeout=5)
        job.join()
        gevent.sleep(0)
        gone = weakref.ref(job)
        del job
        assert gone() is None
    finally:
        gc.enable()


def task(*_words: Any, **_more: Any) -> None:
    """Do nothing."""


def message() -> Any:
    app = Celery(set_as_current=False)
    app.conf.update(accept_content=["json"], task_serializer="json")
    body = app.amqp.as_task_v2("6f5a", "name", args=("a",), kwargs={"b": 2}, timezone=None)
    sent = MagicMock(headers=body.headers, body="…", payload=body.body, content_type="application/json", content_encoding="utf-8")
    sent.properties, sent.delivery_info = body.properties, {"exchange": "", "routing_key": "io", "redelivered": False}
    return sent


@pytest.mark.parametrize("made_by", [request.Request, Request], ids=["celery's", "ours"])
def test_a_request_knows_its_arguments(made_by: Any) -> None:
    app = Celery(set_as_current=False)
    app.task(task, name="name")
    found = made_by(message(), app=app, headers=None)
    assert found.args == ("a",)
    assert found.kwargs == {"b": 2}


def test_what_runs_does_not_decode_again() -> None:
    app = Celery(set_as_current=False)
    app.task(task, name="name")
    found = Request(message(), app=app, headers=None)
    assert found.content_type is None
    args, kwargs, embed = found.body
    assert (args, kwargs) == (("a",), {"b": 2})
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}


def test_the_worker_makes_its_pool_and_requests_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery(set_as_current=True)
    made = app.task(task, name="name")
    controller = MagicMock()
    use(controller)
    assert controller.pool_cls is TaskPool
    assert made.Request is Request


def test_what_was_imported_is_kept_from_the_garbage_collector() -> None:
    try:
        worker_ready.send(sender=None)
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
