"""Filling and emptying Celery's queues from outside, without what `delay` does beside publishing: the bench measures workers.

Who submits has its share of the same two cores. Tasks of a kind differ by their id and their time alone, so Celery puts one message
together, and the others are made from it.
"""

import time

import measured
from kombu import Connection

PERSISTENT = 2


def _connection(app) -> Connection:
    connection = app.connection_for_write()
    # Nobody waits for a prefilled queue to be safe
    connection.transport_options = {**connection.transport_options, "confirm_publish": False}
    return connection


def submit(app, name: str, count: int, rate: float, queue: str | None = None) -> None:
    """Publish so many tasks, to the queue of that name or else to Celery's default one."""
    kind = app.amqp.create_task_message("", name, args=[0.0])
    _args, kwargs, embedded = kind.body
    with _connection(app) as connection:
        producer = app.amqp.Producer(connection)
        for number in measured.at_rate(count, rate):
            task = f"{name}-{number}"
            producer.publish(
                ([time.time()], kwargs, embedded),
                # The broker's own, in which each queue has its name
                exchange="",
                routing_key=queue or app.conf.task_default_queue,
                serializer=app.conf.task_serializer,
                delivery_mode=PERSISTENT,
                headers={**kind.headers, "id": task, "root_id": task},
                **{**kind.properties, "correlation_id": task},
            )


def purge(app, queues: list[str]) -> None:
    """Empty these queues, where they are there."""
    with _connection(app) as connection:
        for queue in queues:
            app.amqp.queues[queue](connection.default_channel).declare()
            connection.default_channel.queue_purge(queue)
