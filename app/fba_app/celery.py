"""The Celery application, for `celery -A fba_app.celery`.

What follows serves one promise: a message once published reaches a worker, whatever restarts in between. The price is
that it can come more than once. For the tasks of `fba_app.tasks` that is no matter: the row is the task, and the
message only says that there is something to do. A plain Celery task must make its effects safe to repeat.
"""

import ssl
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from celery import Celery
from kombu import Exchange, Queue

from fba_app.keepalive import SOCKET_OPTIONS
from fba_app.settings import Settings, get_settings
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE

DEAD_LETTER_QUEUE = "dead-letter"
"""Where the broker puts what no worker could take."""


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(name, "topic"), routing_key=name, queue_arguments={"x-queue-type": "quorum"})


def _broker(settings: Settings) -> dict[str, Any]:
    scheme = "amqps" if settings.tls_ca_file else "amqp"
    user = quote(settings.rabbitmq_username, safe="")
    password = quote(settings.rabbitmq_password.get_secret_value(), safe="")
    vhost = quote(settings.rabbitmq_vhost, safe="")
    tls = {
        # py-amqp reads them for each connection, as does the synchronous half of redis-py below.
        **settings.tls_files("ca_certs", "certfile", "keyfile"),
        "cert_reqs": ssl.CERT_REQUIRED,
        # Without it the certificate's host name is not checked.
        "server_hostname": settings.rabbitmq_host,
    }
    return {
        "broker_url": f"{scheme}://{user}:{password}@{settings.rabbitmq_host}:{settings.rabbitmq_port}/{vhost}",
        "broker_use_ssl": tls if settings.tls_ca_file else False,
    }


def _result_backend(settings: Settings) -> dict[str, Any]:
    scheme = "rediss" if settings.tls_ca_file else "redis"
    password = quote(settings.redis_password.get_secret_value(), safe="")
    url = f"{scheme}://:{password}@{settings.redis_host}:{settings.redis_port}/{settings.redis_database}"
    tls = {
        **settings.tls_files("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
    }
    return {
        "result_backend": f"fba_app.results.ResultBackend+{url}",
        "redis_backend_use_ssl": tls if settings.tls_ca_file else None,
    }


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, by Celery's own names. Times are in seconds."""
    return {
        **_broker(settings),
        **_result_backend(settings),
        # Quorum queues are the only ones that survive a broker's crash with certainty, in a cluster and alone.
        "task_queues": [_queue(IO_QUEUE), _queue(CPU_QUEUE)],
        "task_default_queue": IO_QUEUE,
        "task_default_queue_type": "quorum",
        # A queue that only `-Q` or a route names is made to the same pattern.
        "task_create_missing_queue_type": "quorum",
        # A direct exchange cannot delay a message in the broker: the worker would hold every task with an ETA instead.
        "task_default_exchange_type": "topic",
        "task_create_missing_queue_exchange_type": "topic",
        # The broker forgets a task when it is done, not when it is handed out.
        "task_acks_late": True,
        # A worker killed in mid-task says nothing of the task: it goes back to the queue.
        "task_reject_on_worker_lost": True,
        # What one worker holds, no other can run: take no more than can start now.
        "worker_prefetch_multiplier": 1,
        # The broker gives the messages of a lost connection to others. What ran on here would fill the pool and keep
        # the worker from answering; it begins again when its claim has run out.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "broker_transport_options": {
            # Publishing succeeds only when the broker has the message safe.
            "confirm_publish": True,
            # py-amqp's own would take more than a minute for an idle connection, and a second's pause for the end.
            "socket_settings": SOCKET_OPTIONS,
        },
        # About a minute in all, which outlasts a broker's restart.
        "task_publish_retry_policy": {
            "max_retries": 20,
            "interval_start": 0.2,
            "interval_step": 0.4,
            "interval_max": 5,
        },
        # A worker that gave up would sit there, running and deaf.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Heartbeats slow the gevent worker to a dozen tasks a second and can deadlock it with confirms. The sockets'
        # TCP keepalive, above, finds a dead broker instead.
        "broker_heartbeat": 0,
        # Only data crosses the broker: unpickling a message would be running it.
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        # Redis here evicts nothing by itself, so results must leave on their own.
        "result_expires": timedelta(days=1),
        # A finished task waits for Redis to come back rather than lose its result.
        "result_backend_always_retry": True,
        # One backend for all greenlets: otherwise each task builds one anew, at milliseconds of CPU.
        "result_backend_thread_safe": True,
        # The pool makes the others wait (see results.py), so this need not follow the worker's concurrency.
        "redis_max_connections": 32,
        # Shorter than the default two minutes for a Redis that has gone without a word.
        "redis_socket_timeout": 10.0,
        "redis_socket_connect_timeout": 5.0,
        # How it asks, Celery has no setting for: see results.py.
        "redis_socket_keepalive": True,
        # The soft limit lets a task clean up. The broker's consumer_timeout must be longer than the hard one.
        "task_soft_time_limit": settings.soft_time_limit,
        "task_time_limit": settings.task_time_limit,
        "timezone": settings.timezone,
        "enable_utc": True,
        "beat_scheduler": "fba_app.schedules.scheduler:DatabaseScheduler",
    }


app = Celery("fba_app", include=["fba_app.tasks.runner", "fba_app.maintenance"])
app.conf.update(configuration(get_settings()))
