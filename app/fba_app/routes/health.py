"""Whether this server lives, and whether it can do its work."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from fastapi import APIRouter, Response, status
from pydantic import BaseModel
from sqlalchemy import text

from fba_app import cache, db
from fba_app.celery import app as celery_app

CHECK_TIMEOUT = 2.5
"""Seconds for each check; they run at the same time."""

State = Literal["ok", "unavailable", "timeout"]

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/health", tags=["health"])

# A broker that hangs keeps a thread until its own timeout: it must not be one that requests need.
_broker_checks = ThreadPoolExecutor(max_workers=4, thread_name_prefix="broker-check")


class Readiness(BaseModel):
    """The whole, and each service it rests on."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, State]


async def _postgres() -> None:
    async with db.async_engine().connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _redis() -> None:
    await cache.client().ping()


def _open_channel() -> None:
    # A new connection: one from the pool can look well long after the broker has gone.
    with celery_app.connection_for_write(connect_timeout=CHECK_TIMEOUT) as connection:
        # Else the second attempt comes after two seconds, when nobody waits for it.
        connection.ensure_connection(max_retries=1, interval_start=0)
        connection.channel().close()


async def _rabbitmq() -> None:
    await asyncio.get_running_loop().run_in_executor(_broker_checks, _open_channel)


CHECKS: dict[str, Callable[[], Awaitable[None]]] = {"postgres": _postgres, "redis": _redis, "rabbitmq": _rabbitmq}


async def _state(name: str) -> State:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await CHECKS[name]()
    except TimeoutError:
        logger.warning("%s gave no answer within %s seconds", name, CHECK_TIMEOUT)
        return "timeout"
    except Exception as error:  # Whatever went wrong, the answer is the same.
        logger.warning("%s is unavailable: %s", name, error)
        return "unavailable"
    return "ok"


@router.get("/live")
async def live() -> dict[str, str]:
    """Answer, which is all that this asks."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(response: Response) -> Readiness:
    """Ask PostgreSQL, Redis and the broker; 503 unless all three answer."""
    response.headers["Cache-Control"] = "no-store"
    states = await asyncio.gather(*map(_state, CHECKS))
    checks = dict(zip(CHECKS, states, strict=True))
    if any(state != "ok" for state in states):
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return Readiness(status="unavailable", checks=checks)
    return Readiness(status="ok", checks=checks)
