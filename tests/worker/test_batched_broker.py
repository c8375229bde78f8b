"""Acknowledgements that go together: the broker forgets what is done, and nothing else."""

import random
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import amqp
import gevent
import pytest
from amqp import spec
from amqp.serialization import loads
from batched_broker import LOOK, READ, BufferedTransport, Channel, Connection
from celery.worker import state
from kombu.transport import pyamqp

ACKS = {spec.Basic.Ack: "ack", spec.Basic.Reject: "reject"}


class Broker:
    """What RabbitMQ keeps of a channel: which messages are out. A connection, as far as a channel needs one."""

    confirm_publish = False

    def __init__(self) -> None:
        self.channels: dict[int, Any] = {}
        self.out: set[int] = set()
        self.acknowledged: set[int] = set()
        self.rejected: set[int] = set()
        self.frames: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self._used_channel_ids: list[int] = []

    def _claim_channel_id(self, number: int) -> None:
        self._used_channel_ids.append(number)

    def frame_writer(self, _type: int, _channel: int, method: tuple[int, int], arguments: bytes, _content: object) -> None:
        # Writing may let others run before and after the broker has it
        gevent.sleep(0)
        if self.fails:
            raise self.fails
        if method not in ACKS:
            self.frames.append((method,))
            return
        (tag, flag), _rest = loads("Lb", arguments, 0)
        self.frames.append((ACKS[method], tag, flag))
        if method == spec.Basic.Reject:
            self.out.remove(tag)
            self.rejected.add(tag)
        else:
            settled = {each for each in self.out if each <= tag} if flag else {tag}
            assert tag in self.out, "RabbitMQ closes the channel"
            self.out -= settled
            self.acknowledged |= settled
        gevent.sleep(0)


class Worker:
    """A channel, and what its consumer gets from the broker."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.channel = Channel(self.broker, 1)
        self.last = 0
        self.channel.callbacks = {"tasks": lambda message: None, "control": lambda message: None}
        self.channel.no_ack_consumers.add("control")

    def deliver(self, count: int = 1, consumer: str = "tasks") -> list[int]:
        tags = list(range(self.last + 1, self.last + 1 + count))
        self.last += count
        for tag in tags:
            if consumer == "tasks":
                self.broker.out.add(tag)
            self.channel._on_basic_deliver(consumer, tag, False, "", "", amqp.Message())
        return tags

    def turn(self) -> None:
        """Let the loop turn until nothing waits to be acknowledged."""
        while self.channel._flusher or self.channel._done:
            gevent.sleep(0)
        gevent.sleep(0.001)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.turn()


def test_what_ends_in_one_turn_is_acknowledged_by_one_frame(worker: Worker) -> None:
    for tag in worker.deliver(100):
        worker.channel.basic_ack(tag)
    assert worker.broker.frames == []
    worker.turn()
    assert worker.broker.frames == [("ack", 100, True)]
    assert worker.broker.out == set()


def test_one_alone_is_one(worker: Worker) -> None:
    worker.deliver(3)
    worker.channel.basic_ack(1)
    worker.turn()
    assert worker.broker.frames == [("ack", 1, False)]


def test_what_is_done_beyond_one_that_is_not_is_acknowledged_apart(worker: Worker) -> None:
    worker.deliver(6)
    for tag in (2, 6, 1, 4):
        worker.channel.basic_ack(tag)
    worker.turn()
    assert worker.broker.frames == [("ack", 2, True), ("ack", 4, False), ("ack", 6, False)]
    worker.channel.basic_ack(3)
    worker.channel.basic_ack(5)
    worker.turn()
    assert worker.broker.frames[3:] == [("ack", 5, True)]
    assert not worker.channel._out


def test_one_that_takes_long_makes_nothing_pile_up(worker: Worker) -> None:
    worker.deliver(1)
    for _ in range(100):
        for tag in worker.deliver(3):
            worker.channel.basic_ack(tag)
        worker.turn()
    assert list(worker.channel._out) == [1]
    assert worker.broker.out == {1}


def test_what_needs_no_acknowledgement_is_in_nobodys_way(worker: Worker) -> None:
    worker.deliver(2)
    worker.deliver(1, "control")
    worker.deliver(1)
    for tag in (1, 2, 4):
        worker.channel.basic_ack(tag)
    worker.turn()
    assert worker.broker.frames == [("ack", 4, True)]


def test_what_was_rejected_is_never_acknowledged(worker: Worker) -> None:
    worker.deliver(3)
    worker.channel.basic_ack(1)
    worker.channel.basic_reject(2, requeue=True)
    worker.channel.basic_ack(3)
    worker.turn()
    assert worker.broker.frames == [("ack", 1, False), ("reject", 2, True), ("ack", 3, False)]
    assert worker.broker.rejected == {2}


def test_whatever_else_is_sent_comes_after_what_was_acknowledged(worker: Worker) -> None:
    worker.deliver(2)
    worker.channel.basic_ack(1)
    worker.channel.basic_ack(2)
    worker.channel.send_method(spec.Basic.Cancel, "sb", ("tasks", True))
    assert worker.broker.frames == [("ack", 2, True), (spec.Basic.Cancel,)]


def test_whatever_else_is_sent_waits_for_acknowledgements_that_are_being_sent(worker: Worker) -> None:
    worker.deliver(4)
    for tag in (2, 4):
        worker.channel.basic_ack(tag)
    while worker.channel._done:
        gevent.sleep(0)
    # The first of two frames is on its way
    worker.channel.send_method(spec.Basic.Cancel, "sb", ("tasks", True))
    assert worker.broker.frames == [("ack", 2, False), ("ack", 4, False), (spec.Basic.Cancel,)]


def test_all_up_to_one_are_acknowledged_where_that_is_asked_for(worker: Worker) -> None:
    worker.deliver(4)
    worker.channel.basic_ack(1)
    worker.channel.basic_ack(3, multiple=True)
    worker.channel.basic_ack(4)
    worker.turn()
    assert worker.broker.frames == [("ack", 1, False), ("ack", 3, True), ("ack", 4, False)]


def test_what_the_broker_no_longer_hears_is_told_and_kept_from_the_next_channel(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    worker.deliver(2)
    worker.broker.fails = ConnectionResetError("gone")
    worker.channel.basic_ack(1)
    worker.turn()
    assert "acknowledgements did not get through" in caplog.text
    worker.channel.basic_ack(2)
    worker.channel.collect()
    worker.turn()
    assert worker.broker.frames == []
    with pytest.raises(amqp.RecoverableConnectionError):
        worker.channel.basic_ack(2)


def test_a_channel_that_begins_anew_knows_no_message_of_before(worker: Worker) -> None:
    worker.deliver(5)
    worker.channel.basic_ack(3)
    worker.turn()
    worker.channel.open = lambda: None
    worker.channel._do_revive()
    worker.last, worker.broker.out, worker.broker.frames = 0, set(), []
    for tag in worker.deliver(2):
        worker.channel.basic_ack(tag)
    worker.turn()
    assert worker.broker.frames == [("ack", 2, True)]


@pytest.mark.parametrize("seed", range(200))
def test_the_broker_forgets_what_is_done_and_nothing_else(seed: int) -> None:
    chance = random.Random(seed)
    worker = Worker()
    running: list[int] = []
    wanted: dict[str, set[int]] = {"ack": set(), "reject": set()}
    jobs = []

    def settle(how: str, tag: int) -> None:
        if how == "ack":
            worker.channel.basic_ack(tag)
        else:
            worker.channel.basic_reject(tag, requeue=True)

    for _ in range(300):
        running += worker.deliver(chance.randint(0, 5))
        if chance.random() < 0.2:
            worker.deliver(1, "control")
        for _ in range(chance.randint(0, 4)):
            if running:
                tag = running.pop(chance.choice([0, 0, 0, chance.randrange(len(running))]))
                how = "reject" if chance.random() < 0.1 else "ack"
                wanted[how].add(tag)
                jobs.append(gevent.spawn(settle, how, tag))
        if chance.random() < 0.3:
            gevent.sleep(0)
        assert worker.broker.acknowledged <= wanted["ack"]
    gevent.joinall(jobs, raise_error=True)
    worker.turn()
    assert worker.broker.acknowledged == wanted["ack"]
    assert worker.broker.rejected == wanted["reject"]
    assert worker.broker.out == set(running)
    assert set(worker.channel._out) == worker.broker.out


def test_connections_of_kombu_are_these() -> None:
    assert pyamqp.Transport.Connection is Connection
    assert issubclass(Connection.Channel, pyamqp.Channel)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection on which nothing comes."""
    here, there = socket.socketpair()
    connection = Connection()
    monkeypatch.setattr(connection, "_transport", transport := amqp.transport.TCPTransport("127.0.0.1:5672"))
    transport.sock = here
    transport._setup_transport()
    yield connection
    here.close()
    there.close()


@pytest.mark.parametrize("wanted", [LOOK / 2, 2.5 * LOOK])
def test_messages_are_waited_for_as_long_as_was_asked(connection: Connection, wanted: float) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=wanted)
    assert time.monotonic() - start >= wanted


@pytest.mark.parametrize(("reason", "code"), [("should_stop", 0), ("should_terminate", True)])
def test_a_worker_that_shall_end_waits_for_no_message(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, reason: str, code: int
) -> None:
    monkeypatch.setattr(state, reason, code)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=20)
    assert time.monotonic() - start < 10


def test_a_connection_is_closed_after_what_shall_be_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    connection = Connection()
    connection.channels = {0: connection, 1: worker.channel}
    closed: list[Any] = []
    monkeypatch.setattr(pyamqp.Connection, "close", lambda self: closed.append(list(worker.broker.frames)))
    worker.deliver(2)
    worker.channel.basic_ack(2)
    connection.close()
    assert closed == [[("ack", 2, False)]]
    connection.channels = None
    connection.close()
    assert len(closed) == 2


def test_frames_are_read_as_many_as_there_are_and_lost_by_no_timeout() -> None:
    here, there = socket.socketpair()
    frame = b"\x08\x00\x00\x00\x00\x00\x00\xce"
    asked: list[int] = []

    class Tls:
        """The half of a TLS socket that is used here."""

        settimeout = here.settimeout
        gettimeout = here.gettimeout

        def do_handshake(self) -> None:
            pass

        def read(self, most: int) -> bytes:
            asked.append(most)
            return here.recv(most)

    transport = BufferedTransport("127.0.0.1:5671", ssl={})
    transport._wrap_socket = lambda *_arguments, **_options: Tls()
    transport.sock = here
    transport._setup_transport()
    there.sendall(3 * frame + frame[:5])
    for _ in range(3):
        assert transport.read_frame() == (8, 0, b"")
    assert asked == [READ]
    with transport.having_timeout(0.01), pytest.raises(TimeoutError):
        transport.read_frame()
    there.sendall(frame[5:])
    with transport.having_timeout(1):
        assert transport.read_frame() == (8, 0, b"")
    here.close()
    there.close()


def test_without_tls_the_transport_is_py_amqps_own() -> None:
    connection = Connection()
    assert type(connection.Transport("127.0.0.1:5672", 1.0, False, 5, 5, socket_settings={})) is amqp.transport.TCPTransport
    assert type(connection.Transport("127.0.0.1:5671", 1.0, {"cert_reqs": ssl.CERT_REQUIRED})) is BufferedTransport
