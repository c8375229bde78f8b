"""What the broker says of messages that were published together."""

import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.transport import SSLTransport, TCPTransport, _AbstractTransport

from fba_app.tasks.confirms import Confirms


class Broker:
    """A connection and its channel; each answer is the broker's word on some messages, and then it is silent."""

    def __init__(self, *answers: tuple[str, int, bool]) -> None:
        self.answers = list(answers)
        self.events: dict[str, set[Callable[..., None]]] = defaultdict(set)
        self.confirms = False
        self.transport: Any = None

    @property
    def connection(self) -> "Broker":
        return self

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


@pytest.fixture(params=[SSLTransport, TCPTransport])
def transport(request: pytest.FixtureRequest) -> Iterator[tuple[_AbstractTransport, socket.socket]]:
    """How py-amqp writes with and without TLS, and the other end, which has no TLS."""
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(0)
        made = request.param("broker")
        if request.param is TCPTransport:
            made.sock = near
            made._setup_transport()
        else:
            made.sock = SimpleNamespace(write=near.send)
        yield made, far
        made.sock = None


def test_what_is_published_together_is_sent_in_one_piece_at_the_end(
    transport: tuple[_AbstractTransport, socket.socket],
) -> None:
    broker = Broker()
    broker.transport, far = transport
    confirms = Confirms(broker)
    # The same memory each time, as py-amqp has it
    memory = bytearray(b"first,")
    with confirms.together():
        broker.transport.write(memoryview(memory))
        memory[:] = b"second"
        broker.transport.write(memoryview(memory))
        with pytest.raises(BlockingIOError):
            far.recv(100)
    assert far.recv(100) == b"first,second"
    broker.transport.write(b"by itself")
    assert far.recv(100) == b"by itself"


def test_nothing_is_sent_of_what_an_error_ends(transport: tuple[_AbstractTransport, socket.socket]) -> None:
    broker = Broker()
    broker.transport, far = transport

    def publish() -> None:
        with Confirms(broker).together():
            broker.transport.write(b"lost")
            raise KeyError

    with pytest.raises(KeyError):
        publish()
    broker.transport.write(b"by itself")
    assert far.recv(100) == b"by itself"


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
