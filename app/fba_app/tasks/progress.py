"""How far tasks have come: in Redis, because it changes often, and nobody misses it once the task is done."""

import json
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from redis.exceptions import RedisError

from fba_app import cache

LIFETIME = 900
"""Seconds that the last word of a task is kept. In a day, a thousand tasks a second would fill Redis."""

PAUSE = 5.0
"""Seconds without a try after Redis did not answer: a task has better things to do than wait for it."""

logger = logging.getLogger(__name__)
_paused_until = 0.0


class Progress(NamedTuple):
    """How much is done, from 0 to 100, and what is being done."""

    percent: float
    message: str


def _key(task_id: UUID) -> str:
    return f"progress:{task_id}"


def write(task_id: UUID, percent: float, message: str) -> None:
    """Set a task's progress. Says so in the log, and no more, if Redis is away."""
    global _paused_until
    # That a task is done, its state says in a moment.
    if percent >= 100 or time.monotonic() < _paused_until:
        return
    try:
        cache.sync_client().set(_key(task_id), json.dumps([round(percent, 1), message]), ex=LIFETIME)
    except RedisError as error:
        logger.warning("no progress is shown: %s", error)
        _paused_until = time.monotonic() + PAUSE


async def read(task_ids: Sequence[UUID]) -> dict[UUID, Progress]:
    """Return the progress of those of the tasks that have one; of none if Redis is away."""
    if not task_ids:
        return {}
    try:
        values = await cache.client().mget([_key(task_id) for task_id in task_ids])
    except RedisError as error:
        logger.warning("no progress is shown: %s", error)
        return {}
    return {
        task_id: Progress(*json.loads(value))
        for task_id, value in zip(task_ids, values, strict=True)
        if value is not None
    }
