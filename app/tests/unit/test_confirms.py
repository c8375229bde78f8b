"""What the broker says of messages that were published together."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from fba_app.tasks.confirms import Confirms


class Broker:
    """A connection and its channel; each answer is the broker's word on some messages, and then it is silent."""

    def __init__(self, *answers: tuple[str, int, bool]) -> None:
        self.answers = list(answers)
        self.events: dict[str, set[Callable[..., None]]] = defaultdict(set)
        self.confirms = False

    def channel(self) -> "Broker":
        return self

    def confirm_select(self) -> None:
        self.confirms = True

    def drain_events(self, timeout: float) -> None:
        assert 0 < timeout <= 4.0
        if not self.answers:
            raise TimeoutError
        name, number, multiple = self.answers.pop(0)
        for callback in self.events[name]:
            callback(number, multiple)


def published(broker: Any, count: int) -> Confirms:
    confirms = Confirms(broker)
    assert broker.confirms
    assert [confirms.expect() for _ in range(count)] == list(range(1, count + 1))
    return confirms


def test_one_word_can_be_of_many_messages() -> None:
    confirms = published(Broker(("basic_ack", 2, False), ("basic_ack", 4, True), ("basic_ack", 5, False)), 5)
    assert confirms.wait(4.0, 10.0) == set()


def test_what_is_refused_is_named_once() -> None:
    broker = Broker(("basic_nack", 2, False), ("basic_ack", 1, False), ("basic_nack", 4, True))
    confirms = published(broker, 4)
    assert confirms.wait(4.0, 10.0) == {2, 3, 4}
    assert confirms.expect() == 5
    broker.answers.append(("basic_ack", 5, False))
    assert confirms.wait(4.0, 10.0) == set()


def test_silence_is_no_word() -> None:
    confirms = published(Broker(("basic_ack", 1, False)), 2)
    with pytest.raises(TimeoutError):
        confirms.wait(4.0, 10.0)
