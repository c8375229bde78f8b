"""`/metrics`, for Prometheus: requests of this server, the queues, and what PostgreSQL tells of tasks and heartbeats.

A server is several processes, and any one of them may answer. Each keeps its counts in a file, in a folder that belongs
to the process that started them all, and who answers adds them up (the multiprocess mode of prometheus_client). What
PostgreSQL knows is asked for when it is wanted, so it is the same whoever answers.
"""

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fba_app import db
from fba_app.health import heartbeats
from fba_app.health.routes import states
from fba_app.tasks.models import DUE, Task
from fba_app.tasks.relay import relay

FOLDERS = Path(tempfile.gettempdir())
PREFIX = "fba-metrics-"

PATIENCE = 3.0
"""Seconds that PostgreSQL has for its part; Prometheus waits ten for the whole."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _identity(process: int) -> str:
    """Name a process as no other one ever will be: its number, and when it began, since numbers come again."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{process}-0"
    return f"{process}-{status.rpartition(')')[2].split()[19]}"


def _folder() -> Path:
    """Return the folder of this server; remove those of servers that have ended."""
    own = FOLDERS / f"{PREFIX}{_identity(os.getppid())}"
    own.mkdir(mode=0o700, exist_ok=True)
    for folder in FOLDERS.glob(f"{PREFIX}*"):
        number, _, _ = folder.name.removeprefix(PREFIX).partition("-")
        if not number.isdecimal() or folder.name != f"{PREFIX}{_identity(int(number))}":
            shutil.rmtree(folder, ignore_errors=True)
    return own


# The environment alone would do only before the first import of prometheus_client, wherever that is.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_folder())
values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]

REQUESTS = Counter("fba_http_requests", "HTTP requests.", ["method", "route", "status"])
DURATION = Histogram("fba_http_request_duration_seconds", "Until the answer begins.", ["method", "route"])

logger = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)


class Middleware:
    """Counts requests, and how long each waits for its answer to begin: a stream may go on for as long as it likes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        answered = False

        def count(status: int) -> None:
            # Neither may take any value that a client thinks of: each is kept for ever.
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            REQUESTS.labels(method, route, str(status)).inc()
            DURATION.labels(method, route).observe(time.perf_counter() - start)

        async def counted(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                count(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except Exception:
            # The answer to this is made outside of here.
            if not answered:
                count(500)
            raise


class _Given(Collector):
    """Metrics as they were found."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics


async def _from_postgresql() -> list[Metric]:
    tasks = GaugeMetricFamily("fba_tasks", "Tasks that are kept.", labels=["kind", "state"])
    due = GaugeMetricFamily("fba_tasks_due", "Tasks that should be with the broker, and are not.")
    oldest = GaugeMetricFamily("fba_tasks_due_oldest_seconds", "How long the oldest of them has been due.")
    ages = GaugeMetricFamily("fba_heartbeat_age_seconds", "Since a part's last sign of life.", labels=["name"])
    unpublished = select(
        func.count(), func.coalesce(func.extract("epoch", func.now() - func.min(Task.due_at)), 0)
    ).where(DUE)
    async with AsyncSession(db.async_engine()) as session:
        for kind, state, count in await session.execute(
            select(Task.kind, Task.state, func.count()).group_by(Task.kind, Task.state)
        ):
            tasks.add_metric([kind, state], count)
        count, age = (await session.execute(unpublished)).one()
        due.add_metric([], count)
        oldest.add_metric([], float(age))
        for name, seconds in (await heartbeats.ages(session)).items():
            ages.add_metric([name], seconds)
    return [tasks, due, oldest, ages]


def _of_the_queues() -> list[Metric]:
    messages = GaugeMetricFamily(
        "fba_queue_messages", "Messages that wait in a queue; in dead-letter, those given up on.", labels=["queue"]
    )
    consumers = GaugeMetricFamily("fba_queue_consumers", "Pools that consume a queue.", labels=["queue"])
    # A second old at most; what the broker said before it went away tells nothing.
    for queue in relay.queues if relay.available else ():
        messages.add_metric([queue.name], queue.messages)
        consumers.add_metric([queue.name], queue.consumers)
    return [messages, consumers]


@router.get("/metrics")
async def metrics() -> Response:
    """Answer a scrape; what a service that is away would have told is left out."""
    up = GaugeMetricFamily("fba_up", "Whether a service answers.", labels=["service"])
    services = await states()
    for service, state in services.items():
        up.add_metric([service], state == "ok")
    found: list[Metric] = [up, *_of_the_queues()]
    if services["postgres"] == "ok":
        try:
            async with asyncio.timeout(PATIENCE):
                found += await _from_postgresql()
        except Exception as error:  # Whatever went wrong, the rest is worth having.
            logger.warning("no metrics from PostgreSQL: %s", error or type(error).__name__)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Given(found))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
