"""oban's producer and worker, on uvloop. ``worker sync`` runs the jobs' bodies with asyncio.to_thread."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import uvloop
from oban import Oban, job
from oban.schema import install

from benchmarks.peers import bodies
from benchmarks.peers.producing import AsyncProducer, arguments, serve

DSN = os.environ["DATABASE_URL"]
CONCURRENCY = 10
IN_THREADS = sys.argv[1:] == ["worker", "sync"]


@job(queue="default")
async def noop() -> None:
    await call(bodies.noop)


@job(queue="default")
async def stamp(number: int) -> None:
    await call(bodies.stamp, number)


@job(queue="default")
async def nap() -> None:
    if IN_THREADS:
        await asyncio.to_thread(bodies.nap)
    else:
        await bodies.nap_async()


async def call(body: Any, *args: Any) -> None:
    if IN_THREADS:
        await asyncio.to_thread(body, *args)
    else:
        body(*args)


JOBS: dict[str, Any] = {"noop": noop, "stamp": stamp, "nap": nap}


class ObanProducer(AsyncProducer):
    packages = ("oban", "psycopg", "uvloop")
    _oban: Oban | None = None

    async def oban(self) -> Oban:
        if self._oban is None:
            self._oban = Oban(pool=await Oban.create_pool(DSN))
        return self._oban

    async def setup(self) -> None:
        pool = await Oban.create_pool(DSN)
        await install(pool)
        await pool.close()

    async def enqueue(self, job: str, number: int) -> None:
        await (await self.oban()).enqueue(JOBS[job].new(*arguments(job, number)))

    async def enqueue_many(self, job: str, count: int) -> None:
        made = [JOBS[job].new(*arguments(job, number)) for number in range(count)]
        await (await self.oban()).enqueue_many(made)


async def work() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    pool = await Oban.create_pool(DSN)
    async with Oban(pool=pool, queues={"default": CONCURRENCY}):
        await stopping.wait()
    await pool.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        uvloop.run(work())
    else:
        serve(ObanProducer(), loop_factory=uvloop.new_event_loop)
