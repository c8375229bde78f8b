"""Write down how a pool reaches its broker, for the health check.

The check asks the pools through the broker every few seconds. To learn how, it would have to import the application, which is most of what
a worker needs that has nothing to do. All pools of a container have the same application, so one file does.

Celery imports this before the worker connects (`--include`).
"""

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_init

PLACE = Path("/tmp/broker.pickle")


def settings(app: Celery) -> dict[str, dict[str, Any]]:
    """Return the parameters of `kombu.Connection` and of `kombu.pidbox.Mailbox` that Celery itself asks its workers with."""
    mailbox = app.control.mailbox
    connection = app.connection_for_write().info()
    return {
        "connection": {name: value for name, value in connection.items() if value is not None},
        "mailbox": {
            "namespace": mailbox.namespace,
            "type": mailbox.type,
            "accept": list(mailbox.accept),
            "serializer": mailbox.serializer,
            "queue_ttl": mailbox.queue_ttl,
            "queue_expires": mailbox.queue_expires,
            "queue_durable": mailbox.queue_durable,
            "queue_exclusive": mailbox.queue_exclusive,
            "reply_queue_ttl": mailbox.reply_queue_ttl,
            "reply_queue_expires": mailbox.reply_queue_expires,
        },
    }


@worker_init.connect
def write_down(sender: Any, **_options: Any) -> None:
    """Write the settings where the check finds them: readable by this user alone, and never half of them."""
    # Not as JSON: options of sockets have numbers for names, those of TLS can be of any type
    content = pickle.dumps(settings(sender.app))
    # Made with mode 0600
    descriptor, temporary = tempfile.mkstemp(dir=PLACE.parent)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
    Path(temporary).rename(PLACE)
