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
    """Publish so many tasks, to the queue of that name or else to Celery's default one."""
    with _connection(app) as connection:
        producer = app.amqp.Producer(connection)
        for number in measured.at_rate(count, rate):
            message = app.amqp.create_task_message(f"{name}-{number}", name, args=[time.time()])
            app.amqp.send_task_message(producer, name, message, queue=queue or app.conf.task_default_queue)


def purge(app, queues: list[str]) -> None:
    """Empty these queues, where they are there."""
    with _connection(app) as connection:
        for queue in queues:
            app.amqp.queues[queue](connection.default_channel).declare()
            connection.default_channel.queue_purge(queue)
