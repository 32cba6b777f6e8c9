"""The floor: one table, one statement to claim, one to finish, one thread. What a product adds is measured against it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import psycopg

from benchmarks.peers import bodies
from benchmarks.peers.producing import Producer, arguments, serve

DSN = os.environ["DATABASE_URL"]
WAIT = 1.0  # seconds
CLAIM = """
    UPDATE raw_job SET state = 1, started_at = statement_timestamp() WHERE id IN (
        SELECT id FROM raw_job WHERE state = 0 ORDER BY id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
    ) RETURNING id, job, number
"""
FINISH = "UPDATE raw_job SET state = 2, finished_at = statement_timestamp() WHERE id = ANY(%s)"
INSERT = "WITH told AS (SELECT pg_notify('raw', '')) INSERT INTO raw_job (job, number) SELECT %s, %s FROM told"


class RawProducer(Producer):
    packages = ("psycopg",)

    def __init__(self) -> None:
        self._connection = psycopg.connect(DSN, autocommit=True, prepare_threshold=0)

    def setup(self) -> None:
        self._connection.execute("""
            CREATE TABLE raw_job (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job text NOT NULL, number integer,
                state smallint NOT NULL DEFAULT 0, started_at timestamptz, finished_at timestamptz
            )
        """)
        self._connection.execute("CREATE INDEX ON raw_job (id) WHERE state = 0")

    def enqueue(self, job: str, number: int) -> None:
        self._connection.execute(INSERT, [job, next(iter(arguments(job, number)), None)])

    def enqueue_many(self, job: str, count: int) -> None:
        numbers = [next(iter(arguments(job, number)), None) for number in range(count)]
        self._connection.execute("INSERT INTO raw_job (job, number) SELECT %s, unnest(%s::int[])", [job, numbers])
        self._connection.execute("NOTIFY raw")


def work(batch: int) -> None:
    """Claim, run and finish batches for ever."""
    signal.signal(signal.SIGTERM, leave)
    with psycopg.connect(DSN, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("LISTEN raw")
        while True:
            claimed = connection.execute(CLAIM, [batch]).fetchall()
            for _, job, number in claimed:
                getattr(bodies, job)(*arguments(job, number))
            if claimed:
                connection.execute(FINISH, [[row[0] for row in claimed]])
            else:
                for _ in connection.notifies(timeout=WAIT, stop_after=1):
                    pass


def leave(number: int, frame: FrameType | None) -> None:
    sys.exit()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(int(sys.argv[2]))
    else:
        serve(RawProducer())
