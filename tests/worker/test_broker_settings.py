"""What the health check learns of a pool's broker, and what it then asks."""

import pickle
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import broker_settings
import pytest
from celery import Celery
from celery.signals import worker_init
from kombu import Connection
from kombu.pidbox import Mailbox

sys.path.insert(0, str(Path(__file__).parents[2] / "roles/worker/files"))
import check

TLS = {
    "ca_certs": "/run/tls/ca.pem",
    "certfile": "/run/tls/certificate.pem",
    "keyfile": "/run/tls/private_key.pem",
    "cert_reqs": ssl.CERT_REQUIRED,
}
SOCKET = {"socket_settings": {socket.TCP_KEEPIDLE: 10}, "confirm_publish": True}


def written(monkeypatch: pytest.MonkeyPatch, folder: Path, app: Celery) -> Path:
    """Let a worker of an application begin, and return what it has written."""
    monkeypatch.setattr(broker_settings, "PLACE", folder / "broker.pickle")
    [answer] = [value for receiver, value in worker_init.send(sender=app.Worker) if receiver is broker_settings.write_down]
    assert answer is None, answer
    return folder / "broker.pickle"


def given(connection: Connection) -> dict[str, Any]:
    """Return what a connection is made with, without what says nothing: a heartbeat of 0 is none."""
    return {name: value for name, value in connection.info().items() if value}


def application(broker: str, **options: Any) -> Celery:
    app = Celery(set_as_current=False, broker=broker)
    app.conf.update(options)
    return app


def test_the_check_connects_as_celery_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = {"broker_use_ssl": TLS, "broker_transport_options": SOCKET, "broker_heartbeat": 7, "control_exchange": "mine"}
    app = application("amqp://us%40er:p%2Fw@rabbit:5671/v%2Fhost", **options)
    settings = pickle.loads(written(monkeypatch, tmp_path, app).read_bytes())
    ours, theirs = Connection(**settings["connection"]), app.connection_for_write()
    assert given(ours) == given(theirs)
    assert (ours.hostname, ours.port, ours.userid, ours.password, ours.virtual_host, ours.ssl) == (
        "rabbit",
        5671,
        "us@er",
        "p/w",
        "v/host",
        TLS,
    )
    assert ours.transport_options == SOCKET
    mailbox = Mailbox(**settings["mailbox"])
    for name in ("exchange", "reply_exchange", "serializer", "queue_expires", "queue_exclusive", "reply_queue_expires"):
        assert getattr(mailbox, name) == getattr(app.control.mailbox, name), name
    assert (mailbox.exchange.name, mailbox.accept) == ("mine.pidbox", ["json"])


def test_one_of_several_brokers_is_found_by_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = application("amqp://a:1@one//;amqp://b:2@two//")
    settings = pickle.loads(written(monkeypatch, tmp_path, app).read_bytes())
    assert given(Connection(**settings["connection"])) == given(app.connection_for_write())
    assert settings["connection"]["alternates"] == ["amqp://a:1@one//", "amqp://b:2@two//"]


def test_only_its_own_user_reads_it_and_none_of_it_is_left_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for password in ("old", "new"):
        place = written(monkeypatch, tmp_path, application(f"amqp://user:{password}@rabbit//"))
        assert pickle.loads(place.read_bytes())["connection"]["password"] == password
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [place]


def test_what_cannot_be_kept_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(broker_settings, "PLACE", tmp_path / "broker.pickle")
    app = application("amqp://rabbit//", broker_transport_options={"not": lambda: None})
    [error] = [value for receiver, value in worker_init.send(sender=app.Worker) if receiver is broker_settings.write_down]
    # Celery writes it to the log
    assert "pickle" in str(error)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def pool(app: Celery, name: str, queues: Any) -> Iterator[None]:
    """A pool that listens as Celery's own does, on a broker in this process."""
    end, ready = Event(), Event()

    def listen() -> None:
        with app.connection_for_read() as connection:
            node = app.control.mailbox(connection).Node(name, channel=connection.channel())
            node.handlers["active_queues"] = lambda _state: queues
            node.listen()
            ready.set()
            while not end.is_set():
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue

    thread = Thread(target=listen)
    thread.start()
    try:
        assert ready.wait(5)
        yield
    finally:
        end.set()
        thread.join()


def test_the_check_hears_those_that_consume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = application("memory://", broker_transport_options={"polling_interval": 0.01})
    settings = pickle.loads(written(monkeypatch, tmp_path, app).read_bytes())
    with pool(app, "io@host", [{"name": "io"}]), pool(app, "cpu@host", []), pool(app, "other@host", [{"name": "io"}]):
        assert check.silent_pools(settings, {"io@host"}, 5.0) == set()
        assert check.silent_pools(settings, {"io@host", "cpu@host"}, 5.0) == {"cpu@host"}
        assert check.silent_pools(settings, {"io@host", "gone@host"}, 0.5) == {"gone@host"}
