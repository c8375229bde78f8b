"""taskiq as its guide sets it up, with results in Redis. BENCH_PREFETCH: how many messages a process may hold."""

import asyncio
import os
import time

import measured
import stack
from taskiq_aio_pika import AioPikaBroker
from taskiq_redis import RedisAsyncResultBackend

results = RedisAsyncResultBackend(stack.REDIS, result_ex_time=86400, **stack.REDIS_TLS)
broker = AioPikaBroker(stack.AMQP, qos=int(os.environ["BENCH_PREFETCH"]), ssl_context=stack.tls()).with_result_backend(results)


# Its tasks are coroutines: one that blocked would stop all the others of its process
async def wait(submitted_at: float) -> None:
    """Wait as for an answer of another service."""
    began_at = time.time()
    await asyncio.sleep(measured.WAIT)
    measured.report("wait", submitted_at, began_at)


async def noop(submitted_at: float) -> None:
    """Do nothing."""
    measured.noop(submitted_at)


# What computes is a plain function, for which taskiq has threads
TASKS = {name: broker.task(task_name=name)(function) for name, function in {"noop": noop, "wait": wait, "cpu": measured.cpu}.items()}


async def _submit(kind: str, count: int, rate: float) -> None:
    await broker.startup()
    sending = set()
    for _number in measured.at_rate(count, rate):
        sending.add(asyncio.create_task(TASKS[kind].kiq(time.time())))
        if rate or len(sending) == 200:
            await asyncio.gather(*sending)
            sending.clear()
    await asyncio.gather(*sending)
    await broker.shutdown()


def submit(kind: str, count: int, rate: float) -> None:
    """Publish so many tasks of a kind."""
    asyncio.run(_submit(kind, count, rate))


async def _purge() -> None:
    await broker.startup()
    queue = await broker.write_channel.get_queue("taskiq")
    await queue.purge()
    await broker.shutdown()


def purge() -> None:
    """Forget what waits."""
    asyncio.run(_purge())
