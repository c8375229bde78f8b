"""Celery as it is used where nobody has tuned it: the two addresses, and nothing else. BENCH_BROKER says which broker: amqp or redis."""

import os
import ssl

import celery_queue
import measured
import stack
from celery import Celery

broker = {"amqp": stack.AMQP, "redis": stack.REDIS}[os.environ["BENCH_BROKER"]]
app = Celery("bench", broker=broker, backend=stack.REDIS)
# Addresses too, of a kind
app.conf.broker_use_ssl = {
    "amqp": {
        "ca_certs": stack.CA,
        "certfile": stack.CERTIFICATE,
        "keyfile": stack.KEY,
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": stack.RABBITMQ_HOST,
    },
    "redis": {**stack.REDIS_TLS, "ssl_cert_reqs": ssl.CERT_REQUIRED},
}[os.environ["BENCH_BROKER"]]
app.conf.redis_backend_use_ssl = {**stack.REDIS_TLS, "ssl_cert_reqs": ssl.CERT_REQUIRED}

for name, function in measured.TASKS.items():
    app.task(function, name=name)


def submit(kind: str, count: int, rate: float) -> None:
    """Publish so many tasks of a kind."""
    celery_queue.submit(app, kind, count, rate)


def purge() -> None:
    """Forget what waits."""
    celery_queue.purge(app, ["celery"])
