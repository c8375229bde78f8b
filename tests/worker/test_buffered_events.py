"""Events of tasks that go together, and what Flower makes of them."""

from typing import Any

import pytest
from buffered_events import BufferedDispatcher
from celery import Celery
from celery.events.dispatcher import EventDispatcher
from celery.events.state import State
from kombu import Connection, Consumer, Queue


class Producer:
    """What was published: routing keys, and lists of events."""

    compression = None

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []

    def publish(self, event: Any, *, routing_key: str, **_options: Any) -> None:
        self.messages.append((routing_key, event))


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> BufferedDispatcher:
    app = Celery(set_as_current=False)
    dispatcher = BufferedDispatcher(Connection("memory://"), hostname="io@host", app=app)
    dispatcher.producer = Producer()
    monkeypatch.setattr(dispatcher, "on_send_buffered", lambda: None)
    return dispatcher


def begin(dispatcher: BufferedDispatcher, *tasks: str) -> None:
    for task in tasks:
        dispatcher.send("task-received", uuid=task, name="name", args="()", kwargs="{}")
        dispatcher.send("task-started", uuid=task)


def flower(dispatcher: BufferedDispatcher) -> State:
    """What somebody knows who has got all messages."""
    state = State()
    for routing_key, events in dispatcher.producer.messages:
        assert routing_key == "task.multi"
        for event in events:
            state.event({**event, "local_received": event["timestamp"]})
    return state


def test_a_task_that_ends_before_the_next_message_has_two_events(dispatcher: BufferedDispatcher) -> None:
    begin(dispatcher, "a")
    dispatcher.send("task-succeeded", uuid="a", result="None", runtime=0.1)
    assert dispatcher.producer.messages == []
    dispatcher.flush()
    [(_, events)] = dispatcher.producer.messages
    assert [event["type"] for event in events] == ["task-received", "task-succeeded"]
    task = flower(dispatcher).tasks["a"]
    assert task.state == "SUCCESS"
    assert task.received <= task.started <= task.succeeded
    assert task.name == "name"


def test_a_task_that_goes_on_is_known_to_have_begun(dispatcher: BufferedDispatcher) -> None:
    begin(dispatcher, "a", "b")
    dispatcher.send("task-failed", uuid="b", exception="E()", traceback="")
    dispatcher.flush()
    task = flower(dispatcher).tasks["a"]
    assert task.state == "STARTED"
    began = task.started
    assert flower(dispatcher).tasks["b"].state == "FAILURE"
    dispatcher.send("task-succeeded", uuid="a", result="None", runtime=1.0)
    dispatcher.flush()
    task = flower(dispatcher).tasks["a"]
    assert task.state == "SUCCESS"
    assert task.started == began
    assert [event["type"] for event in dispatcher.producer.messages[1][1]] == ["task-succeeded"]


def test_an_attempt_that_comes_again_begins_again(dispatcher: BufferedDispatcher) -> None:
    begin(dispatcher, "a")
    dispatcher.send("task-retried", uuid="a", exception="E()", traceback="")
    begin(dispatcher, "a")
    dispatcher.flush()
    types = [event["type"] for event in dispatcher.producer.messages[0][1]]
    assert types == ["task-received", "task-retried", "task-received", "task-started"]


def test_what_is_full_is_sent_with_what_has_begun(dispatcher: BufferedDispatcher) -> None:
    dispatcher.buffer_limit = 4
    begin(dispatcher, "a", "b", "c")
    assert dispatcher.producer.messages == []
    dispatcher.send("task-received", uuid="d", name="name", args="()", kwargs="{}")
    assert [len(events) for _, events in dispatcher.producer.messages] == [7]
    dispatcher.flush()
    assert len(dispatcher.producer.messages) == 1


def test_nothing_is_kept_for_events_that_nobody_wants(dispatcher: BufferedDispatcher) -> None:
    dispatcher.groups = {"worker"}
    begin(dispatcher, "a")
    dispatcher.disable()
    begin(dispatcher, "b")
    assert dispatcher._begun == {}
    assert dispatcher._group_buffer["task"] == []


def test_messages_are_compressed() -> None:
    sent: list[str] = []
    with Connection("memory://") as connection:
        dispatcher = BufferedDispatcher(connection, hostname="io@host", app=Celery(set_as_current=False))
        begin(dispatcher, *map(str, range(100)))
        with Consumer(connection, queues=[Queue("events", dispatcher.exchange, "#")], callbacks=[lambda events, _: sent.extend(events)]):
            size: list[int] = []
            channel = dispatcher.producer.channel
            prepare = channel.prepare_message
            channel.prepare_message = lambda body, *words, **more: size.append(len(body)) or prepare(body, *words, **more)
            dispatcher.flush()
            connection.drain_events(timeout=1)
    assert len(sent) == 200
    assert size[0] < 200 * 30


def test_an_event_is_what_celery_makes_it(dispatcher: BufferedDispatcher) -> None:
    """But for the moment at which it was made, and its number."""
    stock = EventDispatcher(Connection("memory://"), hostname="io@host", app=dispatcher.app, buffer_group=["task"])
    stock.producer = Producer()
    for each in (stock, dispatcher):
        each.send("task-received", uuid="a", name="name", args="()", kwargs="{}", eta=None)
        each.send("task-started", uuid="a")
        each.flush()
    ours, theirs = (each.producer.messages[0][1] for each in (dispatcher, stock))
    for mine, its in zip(ours, theirs, strict=True):
        assert abs(mine.pop("timestamp") - its.pop("timestamp")) < 60
        assert mine.pop("clock") > its.pop("clock")
        assert mine == its
