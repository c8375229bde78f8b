"""`/health`: whether this server lives, whether it can do its work, and whether the others do theirs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from fastapi import APIRouter, Response, status
from pydantic import ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import cache, db
from fba_app.celery import app as celery_app
from fba_app.health import heartbeats
from fba_app.types import Model

CHECK_TIMEOUT = 2.5
"""Seconds for each check; they run at the same time."""

State = Literal["ok", "unavailable", "timeout"]

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/health", tags=["health"])

# A broker that hangs keeps a thread until its own timeout: it must not be one that requests need.
_broker_checks = ThreadPoolExecutor(max_workers=4, thread_name_prefix="broker-check")


class Liveness(Model):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Readiness(Model):
    """The whole, and each service it rests on."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"status": "ok", "checks": {"postgres": "ok", "redis": "ok", "rabbitmq": "ok"}}}
    )

    status: Literal["ok", "unavailable"]
    checks: dict[str, State]


class Pulse(Model):
    """One part that works unasked."""

    state: Literal["ok", "stale", "unknown"] = Field(description="`unknown` while the database is away.")
    age_seconds: float | None = Field(ge=0, description="Since its last sign of life, if there was one.")


class Background(Model):
    """The whole, and each part that works unasked."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": "ok",
                "checks": {
                    "beat": {"state": "ok", "age_seconds": 2.1},
                    "worker:io": {"state": "ok", "age_seconds": 31.4},
                    "worker:cpu": {"state": "ok", "age_seconds": 31.3},
                },
            }
        }
    )

    status: Literal["ok", "stale"]
    checks: dict[str, Pulse]


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


async def states() -> dict[str, State]:
    """Ask each service whether it answers; takes no longer than the timeout of one check."""
    return dict(zip(CHECKS, await asyncio.gather(*map(_state, CHECKS)), strict=True))


async def _ages() -> dict[str, float] | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT), AsyncSession(db.async_engine()) as session:
            return await heartbeats.ages(session)
    except Exception as error:  # As above.
        logger.warning("the heartbeats cannot be read: %s", error or type(error).__name__)
        return None


def _pulse(age: float | None, limit: float) -> Pulse:
    if age is None:
        return Pulse(state="stale", age_seconds=None)
    return Pulse(state="ok" if age <= limit else "stale", age_seconds=round(max(age, 0), 1))


@router.get("/live", summary="Does this server live?")
async def live() -> Liveness:
    """Answer, which is all that this asks."""
    return Liveness()


@router.get(
    "/ready",
    summary="Can this server work?",
    responses={503: {"model": Readiness, "description": "A service does not answer."}},
)
async def ready(response: Response) -> Readiness:
    """Ask PostgreSQL, Redis and the broker; 503 unless all three answer."""
    response.headers["Cache-Control"] = "no-store"
    checks = await states()
    if any(state != "ok" for state in checks.values()):
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return Readiness(status="unavailable", checks=checks)
    return Readiness(status="ok", checks=checks)


@router.get(
    "/background",
    summary="Do beat and the workers work?",
    responses={503: {"model": Background, "description": "A part has not been heard of for too long."}},
)
async def background(response: Response) -> Background:
    """Look at the heartbeats: beat gives one every few seconds, and sends each queue's workers one every minute.

    503 if one of them is too old. This is for whoever watches the application: a server is ready all the same.
    """
    response.headers["Cache-Control"] = "no-store"
    ages = await _ages()
    if ages is None:
        checks = {name: Pulse(state="unknown", age_seconds=None) for name in heartbeats.LIMITS}
    else:
        checks = {name: _pulse(ages.get(name), limit) for name, limit in heartbeats.LIMITS.items()}
    if any(pulse.state != "ok" for pulse in checks.values()):
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return Background(status="stale", checks=checks)
    return Background(status="ok", checks=checks)
