"""Read and acknowledge many messages at once.

py-amqp reads each message in nine small pieces, which are nine calls of TLS, and Celery acknowledges each task by a frame of its own, which
is a record of TLS, and for a quorum queue one command that all its members agree on. Here a read takes what is there, and the tasks that
end in one turn of gevent's loop are acknowledged together.

What is acknowledged later is acknowledged all the same before the channel or the connection is closed. A worker that is killed in between
has its tasks run again, as with the frames that the kernel has not sent.

Celery imports this before the worker connects (`--include`), for pools of greenlets alone: others ask the system whether there is something
to read, which does not know what has been read already.
"""

import contextlib
import logging
import time
from collections import OrderedDict
from typing import Any

import amqp
import gevent
from amqp import spec
from amqp.transport import SSLTransport, TCPTransport
from celery.worker import state
from gevent.lock import RLock
from kombu.transport import pyamqp

# Seconds between two looks whether the worker shall end: Celery looks after each wait for messages, which are of one and two seconds
LOOK = 0.25

# Bytes; as much as a record of TLS has at most
READ = 16384

# The second answers the broker, which has closed the channel and wants nothing else any more
NOT_AFTER_ACKS = (spec.Basic.Ack, spec.Channel.CloseOk)

logger = logging.getLogger(__name__)


def shall_end() -> bool:
    """Return whether the worker was asked to end. Celery keeps the code that it shall end with, which can be zero."""
    return any(code is not None and code is not False for code in (state.should_stop, state.should_terminate))


class BufferedTransport(SSLTransport):
    """py-amqp's transport over TLS, which asks for more than it needs: what is left over, it keeps already."""

    def _setup_transport(self) -> None:
        super()._setup_transport()
        read = self.sock.read
        self._quick_recv = lambda missing: read(max(missing, READ))


class Channel(pyamqp.Channel):
    """kombu's channel, which acknowledges together what is acknowledged in one turn of the loop.

    `basic.ack` with `multiple` settles all that was delivered up to its tag. So it is sent for the oldest ones as far as all of them are
    done, and for each one that is done beyond the first that is not, a frame of its own.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Also while a frame is being written, which lets other greenlets run
        self._order = RLock()
        # What the broker waits for, the oldest first; and of that, what shall be acknowledged
        self._out: OrderedDict[int, None] = OrderedDict()
        self._done: set[int] = set()
        self._flusher: gevent.Greenlet | None = None
        super().__init__(*arguments, **options)

    def basic_ack(self, delivery_tag: int, multiple: bool = False, **options: Any) -> None:
        """Acknowledge a message in the next turn of the loop at the latest."""
        if multiple:
            with self._order:
                self.flush()
                super().basic_ack(delivery_tag, multiple=True, **options)
                while self._out and (not delivery_tag or next(iter(self._out)) <= delivery_tag):
                    self._out.popitem(last=False)
            return
        if self.connection is None:
            raise amqp.RecoverableConnectionError("connection already closed")
        self._done.add(delivery_tag)
        if self._flusher is None:
            self._flusher = gevent.spawn(self._flush_or_tell)

    def basic_reject(self, delivery_tag: int, requeue: bool, **options: Any) -> None:
        """Give a message back, or have it go to the dead letters."""
        with self._order:
            super().basic_reject(delivery_tag, requeue, **options)
            self._out.pop(delivery_tag, None)

    def send_method(self, sig: Any, *arguments: Any, **options: Any) -> Any:
        """Send a frame, after what shall be acknowledged before it."""
        if sig not in NOT_AFTER_ACKS:
            self.flush()
        return super().send_method(sig, *arguments, **options)

    def flush(self) -> None:
        """Send the acknowledgements that wait, and return once those are sent that another greenlet is sending."""
        with self._order:
            if not self._done:
                return
            done, self._done = self._done, set()
            last, count = 0, 0
            while self._out and (oldest := next(iter(self._out))) in done:
                self._out.popitem(last=False)
                done.remove(oldest)
                last, count = oldest, count + 1
            if last:
                super().basic_ack(last, multiple=count > 1)
            for tag in sorted(done):
                super().basic_ack(tag)
                self._out.pop(tag, None)

    def collect(self) -> None:
        """Forget what the broker no longer knows: the connection is closed."""
        self._forget()
        super().collect()

    def _do_revive(self) -> None:
        self._forget()
        super()._do_revive()

    def _forget(self) -> None:
        self._out.clear()
        self._done.clear()

    def _flush_or_tell(self) -> None:
        # First, so that what is acknowledged meanwhile is not left without a flush
        self._flusher = None
        try:
            self.flush()
        except (*amqp.Connection.connection_errors, *amqp.Connection.channel_errors) as error:
            logger.critical("acknowledgements did not get through, these tasks come again: %r", error)

    def _on_basic_deliver(self, consumer_tag: str, delivery_tag: int, *arguments: Any) -> None:
        if consumer_tag not in self.no_ack_consumers:
            self._out[delivery_tag] = None
        super()._on_basic_deliver(consumer_tag, delivery_tag, *arguments)

    def _on_get_ok(self, delivery_tag: int, *arguments: Any) -> Any:
        self._out[delivery_tag] = None
        return super()._on_get_ok(delivery_tag, *arguments)


class Connection(pyamqp.Connection):
    """kombu's connection, with channels and a transport of these."""

    Channel = Channel

    def Transport(
        self,
        host: str,
        connect_timeout: float,
        ssl: Any = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        socket_settings: Any = None,
        **options: Any,
    ) -> Any:
        """Return what reads and writes bytes."""
        kind = BufferedTransport if ssl else TCPTransport
        return kind(
            host,
            connect_timeout=connect_timeout,
            ssl=ssl,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            socket_settings=socket_settings,
            **options,
        )

    def drain_events(self, timeout: float | None = None) -> Any:
        """Wait for messages, and no longer than a worker has time that shall end.

        Raises:
            TimeoutError: none has come for `timeout` seconds, or the worker shall end. Celery goes on after that, and looks why.
        """
        if not timeout:
            return super().drain_events(timeout)
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                return super().drain_events(max(0.001, min(left, LOOK)))
            except TimeoutError:
                if left <= LOOK or shall_end():
                    raise

    def close(self, *arguments: Any, **options: Any) -> Any:
        """Close, after what shall be acknowledged before."""
        with contextlib.suppress(*self.connection_errors, *self.channel_errors):
            for channel in list((self.channels or {}).values()):
                if isinstance(channel, Channel):
                    channel.flush()
        return super().close(*arguments, **options)


pyamqp.Transport.Connection = Connection
