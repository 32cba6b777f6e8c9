"""A turn of a worker as one statement, on PostgreSQL: finish jobs that have succeeded, and claim others.

::

    WITH done AS (UPDATE: the successes that the fence lets through),
         stored AS (INSERT: what those returned, if anything),
         chosen AS (SELECT: the first ready jobs of a queue, locked, without those that others have locked),
         taken AS (UPDATE: the chosen ones, if the worker's lease is live)
    SELECT how many were done and taken, and the chosen jobs

One round trip and one commit. The parts are querysets of ``JobQuerySet``, compiled once for each kind of claim; where they
cannot be compiled (SQLite) ``JobQuerySet`` executes them one after the other.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import BooleanField, Model

from ..exceptions import LeaseLost
from .claim import COLUMNS, Kind, in_order, place_of
from .compiled import Hole, compile_select, compile_update, execute
from .database import lock_free_rows
from .marks import Marks, Place
from .result import Result
from .rooms import Rooms, limits_of, share_out

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

WORKER, QUEUE, LIMIT = Hole("%(worker_id)s"), Hole("%(queue_name)s"), Hole("%(limit)s")
CHOSEN_ID = Hole("ANY (ARRAY(SELECT id FROM chosen))")
PRIORITY, MARK = Hole("%(priority)s"), Hole("%(mark)s")
OUTCOME_ID, OUTCOME_ATTEMPT = Hole("outcome.id"), Hole("outcome.attempt")
EACH_QUEUE = Hole("queue.name")

# A turn sees the lease and the pauses as they were when it began. If its successes had to wait for somebody's lock, that
# may be long ago: after so many seconds it claims nothing. Asked of ``done``, so that nothing is locked meanwhile.
LONGEST_WAIT = 0.1
IS_IN_TIME = Hole(
    "(SELECT clock_timestamp() < STATEMENT_TIMESTAMP() + make_interval(secs => %(longest_wait)s)"
    " FROM (SELECT count(*) FROM done) AS finished)",
    output_field=BooleanField(),
)

_TURN = """
WITH done AS ({finish} RETURNING {job}.id, outcome.result),
     stored AS (
         INSERT INTO {result} (job_id, value) SELECT id, result::jsonb FROM done WHERE result IS NOT NULL
         ON CONFLICT (job_id) DO UPDATE SET value = EXCLUDED.value
     ),
     chosen AS MATERIALIZED ({choose}),
     taken AS ({take} RETURNING 1)
SELECT count.done, count.taken, chosen.*, STATEMENT_TIMESTAMP()
FROM (SELECT (SELECT count(*) FROM done) AS done, (SELECT count(*) FROM taken) AS taken) AS count
     LEFT JOIN chosen ON true
"""
# The fence compares each job with the attempt of its own outcome.
_OUTCOMES = """
 FROM unnest(%(ids)s::bigint[], %(attempts)s::int[], %(results)s::text[]) AS outcome (id, attempt, result) WHERE """
_LOOK = """
SELECT name FROM (
    SELECT queue.*, first.priority,
        row_number() OVER (PARTITION BY queue.turn ORDER BY first.priority DESC, first.place) AS number,
        row_number() OVER (PARTITION BY queue.turn, first.priority ORDER BY first.place) AS among_equals
    FROM unnest(%(queue_names)s::text[], %(most)s::int[]) WITH ORDINALITY AS queue (name, most, turn),
        LATERAL ({first}) AS first
) AS ready
WHERE number <= most ORDER BY priority DESC, among_equals, turn LIMIT %(limit)s
"""

# (id, attempt) of a job that has succeeded, and what it returned, as JSON, if that is not None.
Success = tuple[int, int, str | None]
Row = tuple[Any, ...]

# By database and kind of claim.
_turns: dict[tuple[str, Kind], Turn] = {}


class Turn:
    """The compiled statements of one kind of claim on one database."""

    def __init__(self, jobs: JobQuerySet, kind: Kind) -> None:
        self._jobs, self._using = jobs, jobs.db
        using = jobs.db
        ready = kind.of(jobs.ready())
        choose = lock_free_rows(in_order(ready, QUEUE)).filter(IS_IN_TIME).values_list(*COLUMNS)
        choose_from_mark = choose.filter(priority=PRIORITY, place__gte=MARK)
        # Django compiles a query that locks only inside a transaction.
        with transaction.atomic(using=using):
            finish = compile_update(*jobs.finishing(WORKER, OUTCOME_ATTEMPT, pk=OUTCOME_ID), using)
            finish = finish.replace(" WHERE ", _OUTCOMES, 1)
            take = compile_update(*jobs.taking(WORKER, pk=CHOSEN_ID), using)
            tables = {"job": _table(jobs.model, using), "result": _table(Result, using)}
            self._turn, self._marked_turn = (
                _TURN.format(finish=finish, choose=compile_select(chosen, using, LIMIT), take=take, **tables)
                for chosen in (choose, choose_from_mark)
            )
        first = compile_select(in_order(ready, EACH_QUEUE).values_list("place", "priority"), using, LIMIT)
        self._look = _LOOK.format(first=first)

    def take(
        self,
        worker_id: str,
        succeeded: Sequence[Success],
        queue_names: Sequence[str],
        limit: int,
        marks: Marks | None = None,
        rooms: Rooms | None = None,
    ) -> tuple[int, list[Row]]:
        """Return how many of ``succeeded`` the fence let through, and the claimed rows, see ``claim.COLUMNS``.

        With ``marks`` what is ready below them may be left for a later claim. Raise LeaseLost when the lease has ended;
        nothing is claimed then, and the successes may be written.
        """
        rooms = rooms or Rooms()
        most = rooms.most_of(queue_names, limit) if limit else {}
        if not most:
            return self._finish(worker_id, succeeded), []
        if rooms.shared & most.keys():
            return self._take_limited(worker_id, succeeded, most, limit, rooms)
        if len(most) == 1:
            [(name, room)] = most.items()
            if marks is None:
                return self._take_one(worker_id, succeeded, name, room)
            return self._take_marked(worker_id, succeeded, name, room, marks)
        # Looked at before anything is locked: to lock ``limit`` rows of each queue would hide from other workers
        # those that are not taken.
        first = self._first(most, limit)
        done, rows = self._take_shares(worker_id, succeeded, Counter(first))
        if len(first) == limit:
            # What has been claimed by now is: the lease's end is for the next turn.
            with suppress(LeaseLost):
                self._fill_up(worker_id, first, most, limit, rows)
        return done, rows

    def _take_limited(
        self, worker_id: str, succeeded: Sequence[Success], most: dict[str, int], limit: int, rooms: Rooms
    ) -> tuple[int, list[Row]]:
        """Claim in one transaction, under the locks of the queues' rows, which begin after the successes are written."""
        with transaction.atomic(using=self._using):
            done = self._finish(worker_id, succeeded) if succeeded else 0
            return done, share_out(_Source(self, worker_id), most, limit, rooms, limits_of(self._jobs))

    def _first(self, most: Mapping[str, int], limit: int) -> list[str]:
        values = {"queue_names": list(most), "most": list(most.values()), "limit": limit}
        return [name for (name,) in execute(connections[self._using], self._look, values)]

    def _fill_up(
        self, worker_id: str, first: Sequence[str], most: Mapping[str, int], limit: int, rows: list[Row]
    ) -> None:
        """Claim others in the place of those that another worker is just taking."""
        shares = Counter(first)
        for name, room in most.items():
            more = min(limit - len(rows), room - shares[name])
            if more > 0:
                rows += self._take_one(worker_id, (), name, more)[1]

    def _take_shares(
        self, worker_id: str, succeeded: Sequence[Success], shares: dict[str, int]
    ) -> tuple[int, list[Row]]:
        if not shares:
            return self._finish(worker_id, succeeded), []
        if len(shares) == 1:
            [(name, share)] = shares.items()
            return self._take_one(worker_id, succeeded, name, share)
        rows: list[Row] = []
        with transaction.atomic(using=self._using):
            done = self._finish(worker_id, succeeded)
            for name, share in shares.items():
                rows += self._take_one(worker_id, (), name, share)[1]
        return done, rows

    def _take_marked(
        self, worker_id: str, succeeded: Sequence[Success], queue_name: str, limit: int, marks: Marks
    ) -> tuple[int, list[Row]]:
        done = 0
        rows: list[Row] = []
        for place in (*marks.of(queue_name), None):
            began, room = time.monotonic(), limit - len(rows)
            try:
                ended, found = self._take_one(worker_id, succeeded, queue_name, room, place)
            except LeaseLost:
                if not rows:
                    raise
                # What has been claimed by now is: the lease's end is for the next turn.
                break
            done, succeeded, rows = done + ended, (), rows + found
            if place is None:
                marks.learn(queue_name, _places(found), len(found) == room, time.monotonic() - began)
            else:
                marks.move(queue_name, _places(found))
            if len(rows) == limit:
                break
        return done, rows

    def _finish(self, worker_id: str, succeeded: Sequence[Success]) -> int:
        """Finish what has succeeded and claim nothing."""
        return self._take_one(worker_id, succeeded, "", 0)[0]

    def _take_one(
        self,
        worker_id: str,
        succeeded: Sequence[Success],
        queue_name: str,
        limit: int,
        place: Place | None = None,
    ) -> tuple[int, list[Row]]:
        """Claim from one queue; if a place in it is given, its priority only, and from its id on."""
        values: dict[str, Any] = {
            # Written here, because the driver takes longer to make an array than the database to write the rows.
            "ids": "{" + ",".join([str(job_id) for job_id, _, _ in succeeded]) + "}",
            "attempts": "{" + ",".join([str(attempt) for _, attempt, _ in succeeded]) + "}",
            "results": "{" + ",".join([_element(result) for _, _, result in succeeded]) + "}",
            "worker_id": worker_id,
            "queue_name": queue_name,
            "limit": limit,
            "longest_wait": LONGEST_WAIT,
        }
        statement = self._turn
        if place is not None:
            statement, values["priority"], values["mark"] = self._marked_turn, *place
        rows = execute(connections[self._using], statement, values)
        done, taken = rows[0][:2]
        claimed = [row[2:] for row in rows if row[2] is not None]
        if taken != len(claimed):
            raise LeaseLost(f"The lease of worker {worker_id!r} has ended; it claims nothing more.")
        return done, claimed


@dataclass(frozen=True, slots=True)
class _Source:
    """The ready jobs, as ``share_out()`` takes them for one worker."""

    turn: Turn
    worker_id: str

    def first(self, most: Mapping[str, int], limit: int) -> list[str]:
        return self.turn._first(most, limit)

    def take(self, queue_name: str, limit: int) -> list[Row]:
        return self.turn._take_one(self.worker_id, (), queue_name, limit)[1]


def _element(text: str | None) -> str:
    """Return a text as an element of a literal of PostgreSQL's arrays."""
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _table(model: type[Model], using: str) -> str:
    return connections[using].ops.quote_name(model._meta.db_table)


def _places(rows: Sequence[Row]) -> list[Place]:
    return [(-negative, place) for negative, place in map(place_of, rows)]


def turn_of(jobs: JobQuerySet, kind: Kind) -> Turn:
    """Return the statements of a kind of claim, compiled when they are needed first."""
    turn = _turns.get((jobs.db, kind))
    if turn is None:
        turn = _turns[jobs.db, kind] = Turn(jobs, kind)
    return turn
