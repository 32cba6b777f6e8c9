"""pgqueuer's producer and worker, on one asyncpg connection and uvloop each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers import bodies
from benchmarks.peers.producing import AsyncProducer, arguments, serve

DSN = os.environ["DATABASE_URL"]


class PgQueuerProducer(AsyncProducer):
    packages = ("pgqueuer", "asyncpg", "uvloop")
    _queries: Queries | None = None

    async def queries(self) -> Queries:
        if self._queries is None:
            self._queries = Queries(AsyncpgDriver(await asyncpg.connect(DSN)))
        return self._queries

    async def setup(self) -> None:
        await (await self.queries()).install()

    async def enqueue(self, job: str, number: int) -> None:
        await (await self.queries()).enqueue(job, payload(job, number))

    async def enqueue_many(self, job: str, count: int) -> None:
        payloads = [payload(job, number) for number in range(count)]
        await (await self.queries()).enqueue([job] * count, payloads, [0] * count)


def payload(job: str, number: int) -> bytes | None:
    return json.dumps(found).encode() if (found := arguments(job, number)) else None


async def work(batch_size: int, max_concurrent_tasks: int | None = None) -> None:
    application = PgQueuer.from_asyncpg_connection(await asyncpg.connect(DSN))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, application.shutdown.set)

    @application.entrypoint("noop")
    async def noop(job: Job) -> None:
        bodies.noop()

    @application.entrypoint("stamp")
    async def stamp(job: Job) -> None:
        bodies.stamp(*json.loads(job.payload or b"[]"))

    @application.entrypoint("nap")
    async def nap(job: Job) -> None:
        await bodies.nap_async()

    options: dict[str, Any] = {"batch_size": batch_size, "max_concurrent_tasks": max_concurrent_tasks}
    await application.run(dequeue_timeout=timedelta(seconds=30), **options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        uvloop.run(work(**json.loads(sys.argv[2])))
    else:
        serve(PgQueuerProducer(), loop_factory=uvloop.new_event_loop)
