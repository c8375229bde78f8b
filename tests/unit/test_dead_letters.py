"""Going through the dead letters, on a stand-in for the broker's channel."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from ansible_collections.fba.stack.plugins.filter.status import dead_letter_rows

from conftest import ROOT


class Message:
    """What amqp.Message is: a body, properties, and the headers among them."""

    def __init__(self, body: str, **properties: Any) -> None:
        self.body, self.properties, self.delivery_tag = body, properties, None

    @property
    def headers(self) -> dict[str, Any] | None:
        """The headers, None where there are none."""
        return self.properties.get("application_headers")


class Channel:
    """A broker with a queue of dead letters and some others. What is taken and not acknowledged stays."""

    def __init__(self, letters: list[Message], queues: set[str]) -> None:
        self.waiting = list(letters)
        self.held: dict[int, Message] = {}
        self.queues: dict[str, list[Message]] = {name: [] for name in queues}
        self.events: dict[str, set[Callable[..., None]]] = {}
        self.fails = False

    def queue_declare(self, name: str, passive: bool) -> SimpleNamespace:
        """How many there are."""
        assert (name, passive) == ("dead-letter", True)
        return SimpleNamespace(message_count=len(self.waiting))

    def basic_get(self, name: str, no_ack: bool) -> Message | None:
        """Hand one out."""
        assert (name, no_ack) == ("dead-letter", False)
        if not self.waiting:
            return None
        letter = self.waiting.pop(0)
        letter.delivery_tag = len(self.held) + 1
        self.held[letter.delivery_tag] = letter
        return letter

    def basic_publish(self, message: Message, exchange: str, routing_key: str, mandatory: bool) -> None:
        """Confirm, or return and confirm, as RabbitMQ does with what no queue takes."""
        assert (exchange, mandatory) == ("", True)
        if self.fails:
            raise ConnectionError("the broker is gone")
        if routing_key in self.queues:
            self.queues[routing_key].append(message)
            return
        for handler in self.events["basic_return"]:
            handler(None, exchange, routing_key, message)

    def basic_ack(self, tag: int) -> None:
        """Forget one."""
        del self.held[tag]

    def left(self) -> list[str]:
        """The bodies of what is there when the channel is closed."""
        return sorted(letter.body for letter in [*self.held.values(), *self.waiting])


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, without the libraries that are in the application's image alone."""
    names = ("amqp", "amqp.channel", "celery", "celery.app", "celery.app.utils", "kombu")
    for name in names:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    sys.modules["amqp"].Message = Message  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("dead_letters", ROOT / "roles/worker/files/dead_letters.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def letter(body: str, task: str = "app.pay", queue: str = "io", **properties: Any) -> Message:
    """A letter as the broker leaves it."""
    death = {"queue": queue, "reason": "delivery_limit", "count": 1, "time": datetime(2026, 11, 21, 10)}
    older = {"queue": "elsewhere", "reason": "rejected", "count": 1, "time": datetime(2026, 11, 20, 10)}
    headers = {"task": task, "id": f"id-{body}", "lang": "py", "x-death": [death, older], "x-first-death-queue": "elsewhere"}
    return Message(
        body, application_headers={**headers, "x-delivery-count": 20}, content_type="application/json", delivery_mode=2, **properties
    )


def test_they_are_described_and_stay(script: Any) -> None:
    channel = Channel([letter("one"), Message("two")], {"io"})
    assert script.go_through(channel, "list", "") == [
        {
            "task": "app.pay",
            "id": "id-one",
            "queue": "io",
            "reason": "delivery_limit",
            "since": "2026-11-21T10:00:00+00:00",
            "outcome": "kept",
        },
        {"task": "", "id": "", "queue": "", "reason": "", "since": "", "outcome": "kept"},
    ]
    assert channel.left() == ["one", "two"]


def test_each_goes_back_to_where_it_came_from_like_a_new_one(script: Any) -> None:
    channel = Channel([letter("one", correlation_id="c"), letter("two", queue="cpu")], {"io", "cpu"})
    assert [each["outcome"] for each in script.go_through(channel, "replay", "")] == ["sent to io", "sent to cpu"]
    assert channel.left() == []
    (one,) = channel.queues["io"]
    assert one.body == "one"
    assert one.properties == {
        "application_headers": {"task": "app.pay", "id": "id-one", "lang": "py"},
        "content_type": "application/json",
        "delivery_mode": 2,
        "correlation_id": "c",
    }
    assert [each.body for each in channel.queues["cpu"]] == ["two"]


def test_one_that_nobody_takes_stays(script: Any) -> None:
    channel = Channel([letter("one", queue="gone"), Message("two"), letter("three")], {"io"})
    assert [each["outcome"] for each in script.go_through(channel, "replay", "")] == [
        "kept: there is no queue gone",
        "kept: nothing says where it came from",
        "sent to io",
    ]
    assert channel.left() == ["one", "two"]


def test_one_whose_way_is_cut_short_stays(script: Any) -> None:
    channel = Channel([letter("one")], {"io"})
    channel.fails = True
    with pytest.raises(ConnectionError):
        script.go_through(channel, "replay", "")
    assert channel.left() == ["one"]


@pytest.mark.parametrize("action", ["replay", "empty"])
def test_other_tasks_letters_are_left_alone(script: Any, action: str) -> None:
    channel = Channel([letter("one"), letter("two", task="app.mail")], {"io"})
    outcomes = [each["outcome"] for each in script.go_through(channel, action, "app.mail")]
    assert outcomes == ["kept", "sent to io" if action == "replay" else "removed"]
    assert channel.left() == ["one"]


def test_what_others_take_meanwhile_is_not_waited_for(script: Any) -> None:
    channel = Channel([letter("one")], {"io"})
    counted = channel.queue_declare("dead-letter", passive=True)
    counted.message_count = 3
    channel.queue_declare = lambda name, passive: counted  # type: ignore[method-assign]
    assert len(script.go_through(channel, "empty", "")) == 1


def test_its_connection_publishes_only_what_is_confirmed(script: Any) -> None:
    app = MagicMock()
    app.connection_for_write.return_value.transport_options = {"socket_settings": {}}
    assert script.connect(app).transport_options == {"socket_settings": {}, "confirm_publish": True}


def test_the_table_has_a_row_for_each() -> None:
    about = {"task": "app.pay", "id": "1", "queue": "", "reason": "rejected", "since": "", "outcome": "kept"}
    assert dead_letter_rows(json.dumps([about])) == [["app.pay", "1", "-", "rejected", "-", "kept"]]
    assert dead_letter_rows("") == []
