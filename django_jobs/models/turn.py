"""A turn of a worker as one statement, on PostgreSQL: finish jobs that have succeeded, and claim others.

::

    WITH done AS (UPDATE: the successes that the fence lets through),
         chosen AS (SELECT: the first ready jobs of a queue, locked, without those that others have locked),
         taken AS (UPDATE: the chosen ones, if the worker's lease is live)
    SELECT how many were done and taken, and the chosen jobs

One round trip and one commit. The parts are querysets of ``JobQuerySet``, compiled once for each kind of claim; where they
cannot be compiled (SQLite) ``JobQuerySet`` executes them one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction
from django.db.models import QuerySet

from ..exceptions import LeaseLost
from .compiled import Hole, compile_select, compile_update, execute

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

WORKER, QUEUE, LIMIT = Hole("%(worker_id)s"), Hole("%(queue_name)s"), Hole("%(limit)s")
CHOSEN_ID = Hole("ANY (ARRAY(SELECT id FROM chosen))")
OUTCOME_ID, OUTCOME_ATTEMPT = Hole("outcome.id"), Hole("outcome.attempt")
EACH_QUEUE = Hole("queue.name")

_TURN = """
WITH done AS ({finish} RETURNING 1),
     chosen AS MATERIALIZED ({choose}),
     taken AS ({take} RETURNING 1)
SELECT count.done, count.taken, chosen.*, STATEMENT_TIMESTAMP()
FROM (SELECT (SELECT count(*) FROM done) AS done, (SELECT count(*) FROM taken) AS taken) AS count
     LEFT JOIN chosen ON true
"""
# The fence compares each job with the attempt of its own outcome.
_OUTCOMES = " FROM unnest(%(ids)s::bigint[], %(attempts)s::int[]) AS outcome (id, attempt) WHERE "
_LOOK = """
SELECT queue.name FROM unnest(%(queue_names)s::text[]) AS queue (name), LATERAL ({first}) AS first
ORDER BY first.priority DESC, first.id LIMIT %(limit)s
"""

# (id, attempt) of a job that has succeeded.
Success = tuple[int, int]
Row = tuple[Any, ...]


class Parts(NamedTuple):
    """The querysets of a turn, with holes in them, and what its two updates change."""

    finish: tuple[JobQuerySet, dict[str, Any]]
    choose: QuerySet[Any, Any]
    take: tuple[JobQuerySet, dict[str, Any]]
    look: QuerySet[Any, Any]


class Turn:
    """The compiled statements of one kind of claim on one database."""

    def __init__(self, parts: Parts, using: str) -> None:
        self._using = using
        # Django compiles a query that locks only inside a transaction.
        with transaction.atomic(using=using):
            finish = compile_update(*parts.finish, using).replace(" WHERE ", _OUTCOMES, 1)
            choose, take = compile_select(parts.choose, using, LIMIT), compile_update(*parts.take, using)
            self._turn = _TURN.format(finish=finish, choose=choose, take=take)
            self._look = _LOOK.format(first=compile_select(parts.look, using, LIMIT))

    def take(
        self, worker_id: str, succeeded: Sequence[Success], queue_names: Sequence[str], limit: int
    ) -> tuple[int, list[Row]]:
        """Return how many of ``succeeded`` the fence let through, and the claimed rows, see ``claim.COLUMNS``.

        Raise LeaseLost when the lease has ended; nothing is claimed then, and the successes may be written.
        """
        if len(queue_names) < 2 or not limit:
            return self._take_one(worker_id, succeeded, queue_names[0] if queue_names else "", limit)
        # Looked at before anything is locked: to lock ``limit`` rows of each queue would hide from other workers
        # those that are not taken.
        first = execute(connections[self._using], self._look, {"queue_names": list(queue_names), "limit": limit})
        shares = Counter(name for (name,) in first)
        done, rows = self._take_shares(worker_id, succeeded, shares)
        if len(first) == limit:
            # What has been claimed by now is: the lease's end is for the next turn.
            with suppress(LeaseLost):
                self._fill_up(worker_id, queue_names, limit, rows)
        return done, rows

    def _fill_up(self, worker_id: str, queue_names: Sequence[str], limit: int, rows: list[Row]) -> None:
        """Claim others in the place of those that another worker is just taking."""
        for name in queue_names:
            room = limit - len(rows)
            if room:
                rows += self._take_one(worker_id, (), name, room)[1]

    def _take_shares(
        self, worker_id: str, succeeded: Sequence[Success], shares: dict[str, int]
    ) -> tuple[int, list[Row]]:
        if len(shares) < 2:
            [(name, share)] = shares.items() or [("", 0)]
            return self._take_one(worker_id, succeeded, name, share)
        rows: list[Row] = []
        with transaction.atomic(using=self._using):
            done, _ = self._take_one(worker_id, succeeded, "", 0)
            for name, share in shares.items():
                rows += self._take_one(worker_id, (), name, share)[1]
        return done, rows

    def _take_one(
        self, worker_id: str, succeeded: Sequence[Success], queue_name: str, limit: int
    ) -> tuple[int, list[Row]]:
        values = {
            # Written here, because the driver takes longer to make an array than the database to write the rows.
            "ids": "{" + ",".join([str(job_id) for job_id, _ in succeeded]) + "}",
            "attempts": "{" + ",".join([str(attempt) for _, attempt in succeeded]) + "}",
            "worker_id": worker_id,
            "queue_name": queue_name,
            "limit": limit,
        }
        rows = execute(connections[self._using], self._turn, values)
        done, taken = rows[0][:2]
        claimed = [row[2:] for row in rows if row[2] is not None]
        if taken != len(claimed):
            raise LeaseLost(f"The lease of worker {worker_id!r} has ended; it claims nothing more.")
        return done, claimed
