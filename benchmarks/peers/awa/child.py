"""awa's producer and worker, with async handlers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient, Job

from benchmarks.peers import bodies
from benchmarks.peers.producing import AsyncProducer, arguments, serve

DSN = os.environ["DATABASE_URL"]


@dataclass
class Noop:
    pass


@dataclass
class Stamp:
    number: int


@dataclass
class Nap:
    pass


JOBS: dict[str, Any] = {"noop": Noop, "stamp": Stamp, "nap": Nap}


class AwaProducer(AsyncProducer):
    packages = ("awa-pg",)
    _client: AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        if self._client is None:
            self._client = AsyncClient(DSN)
        return self._client

    async def setup(self) -> None:
        await self.client.migrate()
        # As on a fresh installation after its staged transition: the storage that awa is known for.
        await self.client.install_queue_storage(schema="awa")

    async def enqueue(self, job: str, number: int) -> None:
        await self.client.insert(JOBS[job](*arguments(job, number)))

    async def enqueue_many(self, job: str, count: int) -> None:
        await self.client.enqueue_many_copy([JOBS[job](*arguments(job, number)) for number in range(count)])


async def work(queue: dict[str, Any], connections: int) -> None:
    client = AsyncClient(DSN, max_connections=connections)

    @client.task(Noop)
    async def noop(job: Job) -> None:
        bodies.noop()

    @client.task(Stamp)
    async def stamp(job: Job) -> None:
        bodies.stamp(job.args.number)

    @client.task(Nap)
    async def nap(job: Job) -> None:
        await bodies.nap_async()

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await client.start([queue])
    await stopping.wait()
    await client.shutdown()
    await client.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        asyncio.run(work(**json.loads(sys.argv[2])))
    else:
        serve(AwaProducer())
