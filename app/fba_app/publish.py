"""Handing tasks to the broker from the server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked
from kombu.exceptions import KombuError

PUBLISH_TIMEOUT = 4.0
"""Seconds that a request waits for the broker."""

# A request would rather hear no than wait out the minute that a worker has.
RETRY_POLICY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}

# Threads of its own, so that a hanging broker takes none from the rest of the server; fewer than Celery's pool has
# connections, so that none waits for one.
_publishers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="publish")


class BrokerUnavailableError(Exception):
    """The broker did not confirm the task in time. It may still take it, so a task sent again can run twice."""


async def submit(task: Any, *args: Any) -> str:  # noqa: ANN401
    """Publish a Celery task off the event loop and return its id once the broker has it safe.

    Raises:
        BrokerUnavailableError: after PUBLISH_TIMEOUT seconds at most.
    """
    publish = partial(task.apply_async, args, retry_policy=RETRY_POLICY)
    try:
        async with asyncio.timeout(PUBLISH_TIMEOUT):
            result = await asyncio.get_running_loop().run_in_executor(_publishers, publish)
    except (AMQPError, KombuError, MessageNacked, OSError) as error:
        raise BrokerUnavailableError from error
    return str(result.id)
