"""Celery's results, in a real Redis."""

from uuid import uuid4

from celery import states

from fba_app import cache
from fba_app.celery import app


def test_a_result_is_kept_for_a_day_and_told_to_who_waits() -> None:
    task_id = str(uuid4())
    backend = app.backend
    listener = cache.sync_client().pubsub()  # type: ignore[no-untyped-call]
    listener.subscribe(backend.get_key_for_task(task_id))
    assert listener.get_message(timeout=5)
    backend.store_result(task_id, {"rows": 3}, states.SUCCESS)
    assert app.AsyncResult(task_id).get(timeout=5) == {"rows": 3}
    told = listener.get_message(timeout=5)
    assert told
    assert backend.decode_result(told["data"])["task_id"] == task_id
    assert 86_000 < cache.sync_client().ttl(backend.get_key_for_task(task_id)) <= 86_400
    listener.close()


def test_a_task_that_has_succeeded_stays_so() -> None:
    """A second attempt, of a worker that was taken for lost, may end in another way."""
    task_id = str(uuid4())
    backend = app.backend
    backend.store_result(task_id, ValueError("first"), states.FAILURE)
    backend.store_result(task_id, 1, states.SUCCESS)
    backend.store_result(task_id, ValueError("late"), states.FAILURE)
    backend.store_result(task_id, 2, states.SUCCESS)
    result = app.AsyncResult(task_id)
    assert (result.state, result.get(timeout=5)) == (states.SUCCESS, 1)
