"""From the table to the broker: publishes the tasks that are due, and brings back those whose worker has gone.

A task is accepted when its row is committed, so a broker that is away at that moment loses nothing. Whatever is due is
found by looking at the table, so a server that dies after the commit loses nothing either: the next relay finds it.
A message can be sent twice that way; the worker that comes second finds the task taken.
"""

import logging
import threading
import time
from datetime import timedelta
from functools import cache
from math import inf
from typing import Any, NamedTuple
from uuid import UUID

import kombu
from amqp.exceptions import AMQPError, NotFound
from kombu import Connection
from kombu.common import maybe_declare
from kombu.exceptions import KombuError
from kombu.serialization import dumps
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from fba_app import db
from fba_app.celery import DEAD_LETTER_QUEUE
from fba_app.celery import app as celery_app
from fba_app.tasks.confirms import Confirms
from fba_app.tasks.models import DUE, LEASE, State, Task
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE

INTERVAL = 1.0
"""Seconds between two looks at everything. Whoever wakes the relay has it publish without such a look."""

PACE = 0.02
"""Seconds from one look to the next at least: whoever wakes the relay meanwhile shares the next one.

With a thousand tasks a second it publishes 20 at a time. Each look asks PostgreSQL six times, for however many.
"""

BATCH = 100

PATIENCE = 4.0
"""Seconds that the broker has for an answer."""

SILENCE = 10.0
"""Seconds without an answer of the broker after which it counts as away."""

HUNG = 2.0
"""Seconds without an answer of PostgreSQL after which those who run have not been able to renew their claims either."""

IDLE_IN_TRANSACTION = 30
"""Seconds after which PostgreSQL gives up on a server that holds tasks and says nothing: one that was frozen, say."""

UNHEARD = 60
"""Seconds that a published task may wait at an empty queue. Then its message is lost, as with the broker's disk."""

BROKER_ERRORS = (AMQPError, KombuError, OSError)

logger = logging.getLogger(__name__)


class Queue(NamedTuple):
    """What the broker says of a queue."""

    name: str
    messages: int
    consumers: int


def celery_name(kind: str) -> str:
    """Celery's name of the task that runs this kind."""
    return f"fba_app.{kind}"


@cache
def _any_message(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Celery's message for a task of this kind, as its headers and the rest of it."""
    made = celery_app.amqp.create_task_message(
        "", celery_name(kind), (), {}, reply_to=celery_app.thread_oid, ignore_result=True
    )
    content_type, content_encoding, body = dumps(made.body, serializer=celery_app.conf.task_serializer)
    return made.headers, made.properties | {
        "body": body,
        "content_type": content_type,
        "content_encoding": content_encoding,
        "delivery_mode": celery_app.conf.task_default_delivery_mode,
    }


def message(kind: str, queue: kombu.Queue, task_id: UUID) -> dict[str, Any]:
    """Return what kombu's producer has to be given for a task: what `send_task` would give it.

    It is put together once for each kind: all but the id is the same, and that costs more than to publish it.
    """
    headers, rest = _any_message(kind)
    name = str(task_id)
    return rest | {
        "exchange": queue.exchange.name,
        "routing_key": queue.routing_key,
        "headers": headers | {"id": name, "root_id": name},
        "correlation_id": name,
    }


def requeue_lost(session: Session) -> int:
    """Queue the tasks again whose worker has not been heard of for a lease; return how many."""
    # One that is just being changed has somebody, and a frozen worker must not hold up all others.
    lost = select(Task.id).where(Task.state == State.RUNNING, Task.lease_until < func.now())
    requeue = update(Task).where(Task.id == db.any_of(lost.with_for_update(skip_locked=True)))
    requeued = requeue.values(state=State.QUEUED, claim=None, lease_until=None, published_at=None, due_at=func.now())
    return len(session.execute(requeued.returning(Task.id)).all())


def requeue_unheard(session: Session, queue: str) -> int:
    """Make the tasks due again whose message must be lost: an empty queue has had it for too long. Return how many.

    Each time that takes twice as long, up to an hour: a task that no worker knows leaves a dead letter each time.
    """
    age = func.least(Task.published_at - Task.due_at, timedelta(hours=1))
    old = func.now() - func.greatest(age, timedelta(seconds=UNHEARD))
    waiting = Task.state.in_([State.QUEUED, State.RETRYING])
    lost = select(Task.id).where(waiting, Task.queue == queue, Task.published_at < old)
    unheard = update(Task).where(Task.id == db.any_of(lost.with_for_update(skip_locked=True)))
    return len(session.execute(unheard.values(published_at=None).returning(Task.id)).all())


class Relay:
    """One for each server process, in a thread of its own."""

    def __init__(self) -> None:
        self.queues: tuple[Queue, ...] = ()
        """As of the last look."""
        self._heard = -inf
        self._blind = -inf
        """When PostgreSQL was last away."""
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._confirms: Confirms | None = None

    @property
    def available(self) -> bool:
        """Whether the broker has answered lately."""
        return time.monotonic() - self._heard < SILENCE

    def start(self) -> None:
        """Begin to relay. Until the first look, the broker is taken to be there: what is accepted is kept anyway."""
        # Whether PostgreSQL was there, a relay that begins cannot know.
        self._heard = self._blind = time.monotonic()
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after what is being published. What is left, another server's relay finds."""
        self._ended.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=PATIENCE)
            self._thread = None

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def _run(self) -> None:
        looked = -inf
        while not self._ended.is_set():
            begun = time.monotonic()
            self._wake.clear()
            try:
                # Who wakes the relay has something to publish, and does not ask for more.
                if time.monotonic() - looked >= INTERVAL:
                    self._look()
                    looked = time.monotonic()
                else:
                    self._publish_due()
            except BROKER_ERRORS as error:
                self._heard = -inf
                self._disconnect()
                logger.warning("the broker is unavailable: %s", error)
            except SQLAlchemyError as error:
                self._blind = time.monotonic()
                logger.warning("PostgreSQL is unavailable: %s", error)
            except Exception:
                # A thread that ended would accept tasks and never publish them.
                logger.exception("the relay failed, and goes on")
                self._disconnect()
            self._wake.wait(INTERVAL)
            self._ended.wait(begun + PACE - time.monotonic())
        self._disconnect()

    def _look(self) -> None:
        # First, because it tells whether there is a broker to publish to, and makes the connection.
        self.queues = tuple(filter(None, map(self._queue, (IO_QUEUE, CPU_QUEUE, DEAD_LETTER_QUEUE))))
        self._heard = time.monotonic()
        with db.session() as session, session.begin():
            asked = time.monotonic()
            session.execute(select(1))
            if time.monotonic() - asked > HUNG:
                self._blind = time.monotonic()
            # After an outage, those who run have the time of a lease to say so before they count as lost.
            if time.monotonic() - self._blind > LEASE and (lost := requeue_lost(session)):
                logger.warning("%s tasks have lost their worker and are queued again", lost)
            for queue in self.queues:
                # True because workers hold no more than they run: see worker_prefetch_multiplier.
                if queue.messages == 0 and (lost := requeue_unheard(session, queue.name)):
                    logger.warning("%s tasks have lost their message in %s and are published again", lost, queue.name)
        self._publish_due()

    def _publish_due(self) -> None:
        """Publish all that is due."""
        while self._publish_batch() == BATCH and not self._ended.is_set():
            pass

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = celery_app.connection_for_write(
                connect_timeout=PATIENCE,
                transport_options={
                    "read_timeout": PATIENCE,
                    "write_timeout": PATIENCE,
                    # Many at a time, and not after each message.
                    "confirm_publish": False,
                },
            )
            connection.ensure_connection(max_retries=1, interval_start=0)
            self._connection = connection
        return self._connection

    def _confirmed(self) -> Confirms:
        if self._confirms is None:
            self._confirms = Confirms(self._connected())
        return self._confirms

    def _disconnect(self) -> None:
        connection, self._connection, self._confirms = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception:
                # What is left of it ends with the broker's patience, and this thread must not.
                logger.exception("a connection to the broker was not closed")

    def _queue(self, name: str) -> Queue | None:
        connection = self._connected()
        channel = connection.channel()
        try:
            return Queue(*channel.queue_declare(name, passive=True))
        except NotFound:
            return None
        finally:
            if channel.is_open:
                channel.close()

    def _publish_batch(self) -> int:
        """Publish some of what is due, and mark it; return how many."""
        due = select(Task.id, Task.kind, Task.queue).where(DUE)
        with db.session() as session, session.begin():
            session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}s'"))
            # Another server's relay takes others.
            rows = session.execute(due.order_by(Task.due_at).limit(BATCH).with_for_update(skip_locked=True)).all()
            if not rows:
                return 0
            published = self._publish([(row.id, row.kind, row.queue) for row in rows])
            session.execute(update(Task).where(Task.id.in_(published)).values(published_at=func.now()))
            if len(published) < len(rows):
                # They are due still.
                logger.warning("the broker has refused %s of %s messages", len(rows) - len(published), len(rows))
            return len(published)

    def _publish(self, tasks: list[tuple[UUID, str, str]]) -> list[UUID]:
        """Publish tasks (id, kind, queue); return the ids of those that the broker has safe."""
        confirms = self._confirmed()
        queues = {name: celery_app.amqp.queues[name] for _, _, name in tasks}
        for queue in queues.values():
            # The broker confirms also what goes to no queue.
            maybe_declare(queue, confirms.channel)
        producer = celery_app.amqp.Producer(confirms.channel, auto_declare=False)
        numbers = {}
        with confirms.together():
            for task_id, kind, name in tasks:
                numbers[confirms.expect()] = task_id
                producer.publish(**message(kind, queues[name], task_id))
        refused = confirms.wait(PATIENCE, SILENCE)
        self._heard = time.monotonic()
        return [task_id for number, task_id in numbers.items() if number not in refused]


relay = Relay()
