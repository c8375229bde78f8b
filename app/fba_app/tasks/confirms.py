"""Publishing many messages before waiting for the broker to have them safe.

py-amqp waits for the broker's word after each message, which is a round trip and the broker's write to disk for each.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kombu import Connection


class Confirms:
    """What the broker says of the messages published on a channel of its own. For one thread.

    Attributes:
        channel: Where to publish. Nobody else may, because messages are known by their number.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.channel = connection.channel()
        self._published = 0
        self._open: set[int] = set()
        self._refused: set[int] = set()
        self.channel.events["basic_ack"].add(self._acknowledged)
        self.channel.events["basic_nack"].add(self._not_acknowledged)
        self.channel.confirm_select()

    def expect(self) -> int:
        """Return the number of the message that is published next."""
        self._published += 1
        self._open.add(self._published)
        return self._published

    @contextmanager
    def together(self) -> Iterator[None]:
        """Send all that is published within in one piece at the end; nothing, if an error ends it.

        py-amqp writes each message by itself. Each write is a record of TLS, and lets go of Python's lock, for which
        this thread and the event loop then wait by turns.
        """
        transport = self.channel.connection.transport
        # Not `write`, of which the connection has taken hold when it was made.
        write, pieces = transport._write, list[bytes]()
        # A copy, because it is shown the same memory each time.
        transport._write = lambda piece: pieces.append(bytes(piece))
        try:
            yield
        finally:
            transport._write = write
        transport.write(b"".join(pieces))

    def wait(self, patience: float, most: float) -> set[int]:
        """Wait until the broker has spoken of every message; return the numbers of those that it refused.

        Raises:
            TimeoutError: it has said nothing for `patience` seconds, or not all within `most`. What it has of the
                messages is not known.
        """
        deadline = time.monotonic() + most
        while self._open:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"of {len(self._open)} messages the broker has said nothing within {most} s")
            self._connection.drain_events(timeout=min(patience, left))
        refused, self._refused = self._refused, set()
        return refused

    def _acknowledged(self, number: int, multiple: bool) -> None:
        self._open -= self._meant(number, multiple)

    def _not_acknowledged(self, number: int, multiple: bool) -> None:
        meant = self._meant(number, multiple)
        self._refused |= meant
        self._open -= meant

    def _meant(self, number: int, multiple: bool) -> set[int]:
        return {each for each in self._open if each <= number} if multiple else {number}
