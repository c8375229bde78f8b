"""When the relay looks, without PostgreSQL and the broker."""

import threading
import time

import pytest

from fba_app.tasks import relay


def test_who_comes_right_after_another_shares_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    last = threading.Event()

    def look(own: relay.Relay) -> None:
        looks.append(time.monotonic())
        if len(looks) == 5:
            last.set()
        own.wake()

    monkeypatch.setattr(relay.Relay, "_look", look)
    monkeypatch.setattr(relay.Relay, "_publish_due", look)
    monkeypatch.setattr(relay, "PACE", 0.1)
    own = relay.Relay()
    begun = time.monotonic()
    own.start()
    assert last.wait(10)
    own.stop()
    # Clocks are rounded
    assert looks[4] - begun >= 4 * relay.PACE * 0.99


def test_who_comes_to_a_relay_that_rests_is_published_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, published = threading.Event(), threading.Event()
    monkeypatch.setattr(relay.Relay, "_look", lambda _: looked.set())
    monkeypatch.setattr(relay.Relay, "_publish_due", lambda _: published.set())
    monkeypatch.setattr(relay, "INTERVAL", 60.0)
    own = relay.Relay()
    own.start()
    assert looked.wait(10)
    own.wake()
    assert published.wait(10)
    own.stop()
