"""chancy's producer and worker."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from chancy import Chancy, Job, Queue, Worker, job

from benchmarks.peers import bodies
from benchmarks.peers.producing import Producer, arguments, serve

DSN = os.environ["DATABASE_URL"]
CONCURRENCY = 10


@job(queue="default")
def noop() -> None:
    bodies.noop()


@job(queue="default")
def stamp(number: int) -> None:
    bodies.stamp(number)


@job(queue="default")
def nap() -> None:
    bodies.nap()


JOBS: dict[str, Any] = {"noop": noop, "stamp": stamp, "nap": nap}


class ChancyProducer(Producer):
    packages = ("chancy", "psycopg")

    def __init__(self) -> None:
        self._chancy = Chancy(DSN)

    async def setup(self) -> None:
        async with Chancy(DSN) as chancy:
            await chancy.migrate()
            await chancy.declare(
                Queue("default", concurrency=CONCURRENCY, executor=Chancy.Executor.Threaded, eager_polling=True)
            )

    def enqueue(self, job: str, number: int) -> None:
        self._chancy.sync_push(self.made(job, number))

    def enqueue_many(self, job: str, count: int) -> None:
        for _ in self._chancy.sync_push_many([self.made(job, number) for number in range(count)]):
            pass

    def made(self, job: str, number: int) -> Job:
        found: Job = JOBS[job].job
        # The worker imports the function by this name, and this module is not __main__ there.
        func = f"benchmarks.peers.chancy.child.{job}"
        return Job(func=func, queue=found.queue, kwargs=dict(zip(("number",), arguments(job, number), strict=False)))


async def work() -> None:
    async with Chancy(DSN) as chancy, Worker(chancy) as worker:
        await worker.wait_for_shutdown()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        asyncio.run(work())
    else:
        serve(ChancyProducer())
