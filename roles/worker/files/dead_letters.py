"""What the broker has given up on: dead_letters.py -A APPLICATION {list,replay,empty} [--task NAME]

`replay` sends each dead letter to the queue that it came from, and forgets it here once the broker has it safe there: if that is cut
short, a letter may be there twice, and is never lost. `empty` forgets them. With --task, both leave the letters of other tasks alone.
Prints what it found, and what it did with each, as JSON.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from amqp import Message
from amqp.channel import Channel
from celery import Celery
from celery.app.utils import find_app
from kombu import Connection

QUEUE = "dead-letter"

STAMPS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-")
"""What the broker has written on a letter. Without it, the letter is like a new one, with all its deliveries before it."""


def connect(app: Celery) -> Connection:
    """Return a connection that publishes only what the broker confirms, whatever the application's own does."""
    connection = app.connection_for_write()
    connection.transport_options = {**connection.transport_options, "confirm_publish": True}
    return connection


def letters(channel: Channel) -> Iterator[Message]:
    """Return each letter that is there now. One that is not acknowledged is there again when the channel is closed."""
    for _ in range(channel.queue_declare(QUEUE, passive=True).message_count):
        letter = channel.basic_get(QUEUE, no_ack=False)
        if letter is None:
            return
        yield letter


def describe(letter: Message) -> dict[str, Any]:
    """Return what there is to know of a letter, but for the task's arguments, which may be nobody's business.

    `queue` is where it came from, an empty text where nothing says so: somebody has put it here.
    """
    headers = letter.headers or {}
    # The latest comes first
    death = (headers.get("x-death") or [{}])[0]
    when = death.get("time")
    return {
        "task": str(headers.get("task", "")),
        "id": str(headers.get("id", "")),
        "queue": str(death.get("queue", "")),
        "reason": str(death.get("reason", "")),
        "since": when.replace(tzinfo=UTC).isoformat() if isinstance(when, datetime) else "",
        "outcome": "kept",
    }


def send_back(channel: Channel, letter: Message, queue: str) -> bool:
    """Publish a letter to a queue, and return, when the broker has it safe, whether there is that queue."""
    returned: list[Any] = []
    channel.events["basic_return"] = {lambda *about: returned.append(about)}
    headers = {name: value for name, value in (letter.headers or {}).items() if not name.startswith(STAMPS)}
    again = Message(letter.body, **{**letter.properties, "application_headers": headers})
    channel.basic_publish(again, exchange="", routing_key=queue, mandatory=True)
    return not returned


def go_through(channel: Channel, action: str, task: str) -> list[dict[str, Any]]:
    """Do with each letter what is asked, and return what is known of each, with its outcome."""
    found = []
    for letter in letters(channel):
        about = describe(letter)
        found.append(about)
        if action == "list" or (task and about["task"] != task):
            continue
        if action == "empty":
            about["outcome"] = "removed"
        elif not about["queue"]:
            about["outcome"] = "kept: nothing says where it came from"
            continue
        elif send_back(channel, letter, about["queue"]):
            about["outcome"] = f"sent to {about['queue']}"
        else:
            about["outcome"] = f"kept: there is no queue {about['queue']}"
            continue
        channel.basic_ack(letter.delivery_tag)
    return found


def main() -> None:
    """Do it, and print the letters."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-A", "--app", required=True)
    parser.add_argument("action", choices=["list", "replay", "empty"])
    parser.add_argument("--task", default="")
    arguments = parser.parse_args()
    with connect(find_app(arguments.app)) as connection:
        json.dump(go_through(connection.default_channel, arguments.action, arguments.task), sys.stdout)


if __name__ == "__main__":
    main()
