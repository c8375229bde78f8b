"""The promise behind Celery's configuration: what is accepted is run."""

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.schedules import crontab
from celery.utils.quorum_queues import detect_quorum_queues
from kombu import Connection, Producer
from redis import BlockingConnectionPool, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from fba_app import db
from fba_app.celery import app, configuration
from fba_app.settings import get_settings
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE, KINDS
from fba_app.tasks.relay import celery_name, message


def celery_with(**changes: Any) -> Celery:
    other = Celery("other", set_as_current=False)
    other.conf.update(configuration(get_settings().model_copy(update=changes)))
    return other


@pytest.mark.parametrize("name", [IO_QUEUE, CPU_QUEUE, "named-by-a-route"])
def test_every_queue_is_replicated_and_can_delay_in_the_broker(name: str) -> None:
    queue = celery_with().amqp.queues[name]
    assert queue.queue_arguments == {"x-queue-type": "quorum"}
    assert queue.durable
    assert (queue.exchange.type, queue.exchange.durable, queue.routing_key) == ("topic", True, name)


def test_the_default_queue_is_the_same_without_the_list() -> None:
    celery = celery_with()
    celery.conf.task_queues = None
    queue = celery.amqp.queues[IO_QUEUE]
    assert queue.queue_arguments == {"x-queue-type": "quorum"}
    assert (queue.exchange.type, queue.routing_key) == ("topic", IO_QUEUE)


def test_a_worker_without_a_choice_takes_both_queues_and_a_task_without_one_waits() -> None:
    assert set(app.amqp.queues.consume_from) == {IO_QUEUE, CPU_QUEUE}
    assert app.amqp.default_queue.name == IO_QUEUE


def test_a_delayed_task_waits_in_the_broker() -> None:
    assert detect_quorum_queues(app, "amqp")[0]


def test_a_task_is_acknowledged_only_when_it_is_done() -> None:
    app.loader.import_default_modules()
    for kind in KINDS:
        task = app.tasks[celery_name(kind)]
        assert task.acks_late
        assert task.reject_on_worker_lost
    assert app.conf.worker_cancel_long_running_tasks_on_connection_loss


def test_a_worker_takes_no_more_than_it_can_start() -> None:
    assert app.conf.worker_prefetch_multiplier == 1


@pytest.mark.parametrize("queue", [IO_QUEUE, CPU_QUEUE])
def test_the_relays_messages_are_those_of_celery(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[Any, ...]] = []
    # Whether the queue is declared is no part of the message, nor how long to wait, nor whether it is tried again.
    monkeypatch.setattr(Producer, "_publish", lambda _, *arguments: handed.append(arguments[:-5]))
    app.loader.import_default_modules()
    assert KINDS
    for kind in KINDS:
        # The second one has nothing of the first one.
        for task_id in (uuid4(), uuid4()):
            with Producer(app.connection_for_write(), auto_declare=False) as producer:
                producer.publish(**message(kind, app.amqp.queues[queue], task_id))
                app.send_task(
                    celery_name(kind),
                    task_id=str(task_id),
                    queue=queue,
                    producer=producer,
                    ignore_result=True,
                    retry=False,
                    # The worker knows the task's limits.
                    time_limit=None,
                    soft_time_limit=None,
                )
            own, (body, *rest) = handed[-2:]
            assert own == (body.encode(), *rest)
            assert str(task_id) in str(own)


def test_publishing_waits_for_the_broker_to_confirm() -> None:
    assert app.connection_for_write().transport_options["confirm_publish"] is True


def test_publishing_outlasts_a_restart_of_the_broker() -> None:
    policy = app.conf.task_publish_retry_policy
    waits = [
        min(policy["interval_start"] + n * policy["interval_step"], policy["interval_max"])
        for n in range(policy["max_retries"])
    ]
    assert 45 < sum(waits) < 120


def test_a_worker_never_gives_up_on_the_broker() -> None:
    assert app.conf.broker_connection_retry_on_startup
    assert app.conf.broker_connection_max_retries is None


def test_no_heartbeat_slows_the_gevent_worker() -> None:
    assert not app.conf.broker_heartbeat


def test_only_data_crosses_the_broker() -> None:
    assert app.conf.accept_content == ["json"]
    assert (app.conf.task_serializer, app.conf.result_serializer) == ("json", "json")


def test_results_leave_redis_and_one_pool_serves_all_greenlets() -> None:
    backend = app.backend
    assert backend.expires == 24 * 60 * 60
    assert backend.thread_safe
    pool = backend.client.connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    assert pool.max_connections == 32


def test_a_result_waits_for_redis_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = celery_with().backend
    attempts: list[str] = []

    def store_on_third(task_id: str, *_: object, **__: object) -> None:
        attempts.append(task_id)
        if len(attempts) < 3:
            raise RedisConnectionError

    monkeypatch.setattr(backend, "_store_result", store_on_third)
    monkeypatch.setattr(backend, "_sleep", lambda _: None)
    backend.store_result("id-1", "result", "SUCCESS")
    assert attempts == ["id-1"] * 3


def test_publishing_does_not_need_redis() -> None:
    # Nothing listens where the settings say Redis is, so a subscription would raise.
    app.backend.on_task_call(None, "some-id")


def test_the_hard_limit_lets_the_longest_task_finish_and_clean_up() -> None:
    conf = celery_with(task_time_limit=200).conf
    assert get_settings().longest_sleep < celery_with().conf.task_soft_time_limit
    assert 100 < conf.task_soft_time_limit < conf.task_time_limit == 200


def test_what_runs_tasks_loads_no_web_framework() -> None:
    """Each process of a worker would hold it, and be later to start."""
    check = "import sys, fba_app.tasks.runner, fba_app.maintenance; sys.exit('fastapi' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)  # noqa: S603


def test_schedules_follow_the_time_zone() -> None:
    assert str(celery_with(timezone="Asia/Shanghai").timezone) == "Asia/Shanghai"
    assert str(app.timezone) == "UTC"


def test_each_queue_has_a_heartbeat_every_minute_and_all_that_is_scheduled_is_known_to_workers() -> None:
    app.loader.import_default_modules()
    schedule = app.conf.beat_schedule
    for queue in (IO_QUEUE, CPU_QUEUE):
        entry = schedule[f"heartbeat-{queue}"]
        assert (entry["schedule"], entry["options"]["queue"]) == (crontab(minute="*"), queue)
    assert {entry["task"] for entry in schedule.values()} <= set(app.tasks)


def test_the_limits_of_every_kind_fit_into_the_workers() -> None:
    app.loader.import_default_modules()
    for kind in KINDS:
        task = app.tasks[celery_name(kind)]
        assert task.soft_time_limit < task.time_limit <= app.conf.task_time_limit


def test_odd_characters_survive_the_urls() -> None:
    odd = get_settings().model_copy(update={"rabbitmq_vhost": "/", "rabbitmq_username": "a@b/c"})
    connection = Connection(configuration(odd)["broker_url"])
    assert (connection.userid, connection.password, connection.virtual_host) == ("a@b/c", "rabbit-pass", "/")


def test_without_an_authority_nothing_uses_tls() -> None:
    assert not app.connection_for_write().ssl
    assert app.backend.client.connection_pool.connection_class is not SSLConnection
    assert "sslmode" not in db.url(get_settings()).query


def test_with_an_authority_every_connection_verifies_certificate_and_name(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    tls = get_settings().model_copy(update={"tls_ca_file": authority, "rabbitmq_host": "fba_rabbitmq"})
    celery = celery_with(tls_ca_file=authority, rabbitmq_host="fba_rabbitmq")

    broker = celery.connection_for_write()
    assert broker.transport_cls == "amqps"
    assert broker.ssl == {
        "ca_certs": str(authority),
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": "fba_rabbitmq",
    }

    redis = celery.backend.connparams
    assert redis["connection_class"] is SSLConnection
    assert (redis["ssl_cert_reqs"], redis["ssl_ca_certs"]) == (ssl.CERT_REQUIRED, str(authority))
    assert redis["ssl_check_hostname"] is True

    assert db.url(tls).query == {"sslmode": "verify-full", "sslrootcert": str(authority)}


def test_with_a_certificate_every_connection_shows_it(tmp_path: Path) -> None:
    authority, certificate, key = (tmp_path / name for name in ("ca.crt", "app.crt", "app.key"))
    files = {"tls_ca_file": authority, "tls_cert_file": certificate, "tls_key_file": key}
    celery = celery_with(**files)
    ssl_options = celery.connection_for_write().ssl
    assert (ssl_options["certfile"], ssl_options["keyfile"]) == (str(certificate), str(key))
    redis = celery.backend.connparams
    assert (redis["ssl_certfile"], redis["ssl_keyfile"]) == (str(certificate), str(key))
    query = db.url(get_settings().model_copy(update=files)).query
    assert (query["sslcert"], query["sslkey"]) == (str(certificate), str(key))
