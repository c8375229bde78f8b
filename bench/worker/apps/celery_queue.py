"""Filling and emptying Celery's queues from outside, without what `delay` does beside publishing: the bench measures workers."""

import time

import measured
from kombu import Connection


def _connection(app) -> Connection:
    connection = app.connection_for_write()
    # Nobody waits for a prefilled queue to be safe
    connection.transport_options = {**connection.transport_options, "confirm_publish": False}
    return connection


def submit(app, name: str, count: int, rate: float, queue: str | None = None) -> None:
    """Publish so many tasks, to the queue of that name or else to Celery's default one.

    Celery is asked for a message once. To put each together costs more than to publish it, and who submits shares the processors with
    the workers that are measured.
    """
    target = app.amqp.queues[queue or app.conf.task_default_queue]
    made = app.amqp.create_task_message("", name)
    _args, *rest = made.body
    with _connection(app) as connection:
        producer = app.amqp.Producer(connection, auto_declare=False)
        target(connection.default_channel).declare()
        for number in measured.at_rate(count, rate):
            task = f"{name}-{number}"
            producer.publish(
                ([time.time()], *rest),
                exchange="",
                routing_key=target.name,
                headers={**made.headers, "id": task, "root_id": task},
                correlation_id=task,
                serializer=app.conf.task_serializer,
                delivery_mode=app.conf.task_default_delivery_mode,
            )


def purge(app, queues: list[str]) -> None:
    """Empty these queues, where they are there."""
    with _connection(app) as connection:
        for queue in queues:
            app.amqp.queues[queue](connection.default_channel).declare()
            connection.default_channel.queue_purge(queue)
