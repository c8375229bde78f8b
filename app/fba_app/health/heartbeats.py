"""Signs of life of what answers no requests: beat, and the workers of each queue."""

from sqlalchemy import Float, extract, func, select, type_coerce
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db
from fba_app.health.models import Heartbeat
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE

BEAT = "beat"
QUEUES = (IO_QUEUE, CPU_QUEUE)


def worker(queue: str) -> str:
    """Return the name of the heartbeat that a worker of this queue gives."""
    return f"worker:{queue}"


LIMITS = {BEAT: 30.0} | {worker(queue): 150.0 for queue in QUEUES}
"""Seconds after which a heartbeat is stale: several times what lies between two of them."""


def beat(name: str) -> None:
    """Set a heartbeat to the database's present time.

    Raises:
        sqlalchemy.exc.OperationalError: PostgreSQL is away.
    """
    # The moment of the statement: a transaction's would be the same for all that it does.
    now = {"beat_at": func.clock_timestamp()}
    statement = insert(Heartbeat).values(name=name, **now)
    with db.session() as session, session.begin():
        session.execute(statement.on_conflict_do_update(index_elements=[Heartbeat.name], set_=now))


async def ages(session: AsyncSession) -> dict[str, float]:
    """Return the seconds since each heartbeat that ever was."""
    age = type_coerce(extract("epoch", func.clock_timestamp() - Heartbeat.beat_at), Float)
    return {name: float(seconds) for name, seconds in await session.execute(select(Heartbeat.name, age))}
