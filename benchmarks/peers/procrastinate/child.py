"""procrastinate's producer and worker. ``worker async`` runs coroutines, ``worker sync`` plain functions in threads."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.connector import BaseConnector

from benchmarks.peers import bodies
from benchmarks.peers.producing import Producer, arguments, serve

DSN = os.environ["DATABASE_URL"]
CONCURRENCY = 10


class ProcrastinateProducer(Producer):
    packages = ("procrastinate", "psycopg")

    def __init__(self) -> None:
        self._application = application(SyncPsycopgConnector(conninfo=DSN), is_async=False)
        self._application.open()

    def setup(self) -> None:
        self._application.schema_manager.apply_schema()

    def enqueue(self, job: str, number: int) -> None:
        self._application.tasks[job].defer(**named(job, number))

    def enqueue_many(self, job: str, count: int) -> None:
        self._application.tasks[job].batch_defer(*(named(job, number) for number in range(count)))


def named(job: str, number: int) -> dict[str, Any]:
    """Return the arguments by name: procrastinate takes no others."""
    return dict(zip(("number",), arguments(job, number), strict=False))


def application(connector: BaseConnector, *, is_async: bool) -> App:
    made = App(connector=connector)
    made.task(name="noop")(noop_async if is_async else bodies.noop)
    made.task(name="stamp")(stamp_async if is_async else bodies.stamp)
    made.task(name="nap")(bodies.nap_async if is_async else bodies.nap)
    return made


async def noop_async() -> None:
    bodies.noop()


async def stamp_async(number: int) -> None:
    bodies.stamp(number)


async def work(*, is_async: bool) -> None:
    made = application(PsycopgConnector(conninfo=DSN), is_async=is_async)
    async with made.open_async():
        await made.run_worker_async(concurrency=CONCURRENCY, delete_jobs="never")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        asyncio.run(work(is_async=sys.argv[2] == "async"))
    else:
        serve(ProcrastinateProducer())
