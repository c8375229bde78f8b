"""dramatiq as its guide sets it up, with results in Redis."""

import time

import dramatiq
import measured
import pika
import redis
import stack
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

connection = {
    "host": stack.RABBITMQ_HOST,
    "port": int(stack.SETTINGS["RABBITMQ_PORT"]),
    "virtual_host": stack.VHOST,
    "credentials": pika.PlainCredentials(stack.SETTINGS["RABBITMQ_USERNAME"], stack.SETTINGS["RABBITMQ_PASSWORD"]),
    "ssl_options": pika.SSLOptions(stack.tls(), stack.RABBITMQ_HOST),
}
broker = RabbitmqBroker(parameters=[connection])
broker.add_middleware(Results(backend=RedisBackend(client=redis.Redis.from_url(stack.REDIS, **stack.REDIS_TLS))))
dramatiq.set_broker(broker)

ACTORS = {name: dramatiq.actor(function, actor_name=name, store_results=True) for name, function in measured.TASKS.items()}


def submit(kind: str, count: int, rate: float) -> None:
    """Publish so many tasks of a kind."""
    for _number in measured.at_rate(count, rate):
        ACTORS[kind].send(time.time())


def purge() -> None:
    """Forget what waits."""
    for name in ("default", "default.DQ", "default.XQ"):
        broker.declare_queue("default", ensure=True)
        broker.channel.queue_purge(name)
