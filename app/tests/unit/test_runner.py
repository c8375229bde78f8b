"""How an attempt ends that something outside of it ends."""

from uuid import uuid4

import pytest
from greenlet import GreenletExit

from fba_app.tasks import runner
from fba_app.tasks.context import TaskContext
from fba_app.tasks.runner import end_from_outside


def complain(cause: BaseException) -> BaseException:
    """Return what a library raises that is interrupted by this, tidies up, fails at that, and wraps the failure."""
    try:
        try:
            try:
                raise cause
            finally:
                raise ValueError("cannot tidy up")
        except ValueError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "end", [GreenletExit(), SystemExit(1), KeyboardInterrupt()], ids=lambda end: type(end).__name__
)
def test_it_is_found_behind_what_was_raised_in_its_place(end: BaseException) -> None:
    assert end_from_outside(complain(end)) is end
    assert end_from_outside(end) is end


# A generator is closed by an exception of its own, which ends nothing else.
@pytest.mark.parametrize("cause", [TimeoutError(), GeneratorExit()], ids=lambda cause: type(cause).__name__)
def test_an_error_alone_is_none(cause: BaseException) -> None:
    assert end_from_outside(complain(cause)) is None
    assert end_from_outside(None) is None


def test_two_attempts_of_one_task_are_looked_after_apart() -> None:
    """The first goes on for a while where its lease has run out; its end must not take the second from the keeper."""
    keeper = runner.Keeper()
    task_id, first, second = uuid4(), uuid4(), uuid4()
    contexts = {claim: TaskContext(task_id) for claim in (first, second)}
    for claim, context in contexts.items():
        keeper.add(claim, context)
    keeper.remove(first)
    assert keeper._running == {second: contexts[second]}
    keeper.remove(first)
    keeper.remove(second)
    assert keeper._running == {}
