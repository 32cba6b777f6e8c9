"""How many jobs of each queue a claim may take: what the worker has room for, and what all workers together may run or start.

What all share, ``max_running`` and ``rate_limit``, is decided in the claim's own transaction with the queue's row locked. The
jobs that run are counted from their rows. Starts are counted by a token bucket on the queue's row: it holds up to
``rate_limit`` tokens, fills at ``rate_limit`` in each ``rate_window`` by the database's clock, and each claimed job takes one. So
in any window at most ``rate_limit`` jobs start, plus as many once after a pause (the burst).

Nobody waits for the row: a worker that does not get it, because another one is claiming, tries again at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from django.db import connections, transaction
from django.db.models import Case, Count, IntegerField, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Coalesce, Now

from ..outcomes import ClaimedJob
from .compiled import Hole, can_compile, compile_select, compile_update, execute
from .database import lock_free_rows
from .queue import Lane, Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

# How soon (seconds) a worker tries again that found another one claiming; if that is in vain, twice as late each time, up to
# so many times: somebody may have the row locked for long, such as a request that has changed it.
CONTENDED, MOST_DOUBLED = 0.003, 5

_NAME, _NAMES, _LIMIT = Hole("%(name)s"), Hole("ANY (%(names)s)"), Hole("%(limit)s")
_TOKENS, _NOW = Hole("%(tokens)s"), Hole("%(now)s")

Row = tuple[Any, ...]

# By database.
_limits: dict[str, SharedLimits] = {}


# A bucket with this many times as many tokens as a claim may take is far from its limit.
_PLENTY = 10
# More jobs than any claim takes.
_NO_LIMIT = 2**31


class Share(NamedTuple):
    """What a queue's row allows now: ``jobs`` to be claimed; when it is none, ``wait`` (seconds) until one may be."""

    jobs: int
    wait: float | None
    tokens: float | None
    now: datetime


class Rooms:
    """What one worker may claim of its queues in one turn, and what it was told on the way. Used by its exchange only."""

    def __init__(
        self, lanes: Iterable[Lane] = (), held: Iterable[ClaimedJob] = (), free: int = 0, tries: int = 0
    ) -> None:
        """Take the jobs that the worker holds, and how many threads or places on its event loop are ``free``.

        ``tries`` is how many turns in a row have been in vain because another worker was claiming.
        """
        self._lanes = {lane.name: lane for lane in lanes}
        has_own = any(lane.concurrency is not None for lane in self._lanes.values())
        self._held = Counter(job.queue_name for job in held) if has_own else Counter()
        self._free = free
        self._try_again_in = CONTENDED * 2 ** min(tries, MOST_DOUBLED)
        self.shared = frozenset(name for name, lane in self._lanes.items() if lane.is_limited)
        # Jobs may be there that only the limits keep back, and when (seconds) to look again, if that is known.
        self.is_held_back = self.is_contended = False
        self.look_in: float | None = None

    def most_of(self, queue_names: Iterable[str], limit: int) -> dict[str, int]:
        """Return how many jobs there is room for in each queue, up to ``limit``; without queues that have none."""
        most = {name: self._most(self._lanes.get(name), limit) for name in queue_names}
        return {name: room for name, room in most.items() if room > 0}

    def _most(self, lane: Lane | None, limit: int) -> int:
        if lane is None:
            return limit
        if lane.concurrency is not None:
            limit = min(limit, lane.concurrency - self._held[lane.name])
        return limit

    def allowed(self, share: Share, most: int) -> int:
        """Return how many jobs may be claimed of up to ``most``; remember it if limits keep back all of them."""
        if share.jobs <= 0:
            self.hold_back(share.wait)
            return 0
        if share.tokens is not None and share.tokens < _PLENTY * most:
            # It is the claim that takes tokens, so that near the limit what is claimed must start at once.
            most = min(most, self._free)
        return min(most, share.jobs)

    def meet_other(self) -> None:
        """Remember that another worker was just claiming, and when to try again."""
        self.is_contended = True
        self.hold_back(self._try_again_in)

    def hold_back(self, seconds: float | None) -> None:
        self.is_held_back = True
        if seconds is not None:
            self.look_in = seconds if self.look_in is None else min(self.look_in, seconds)


class Source(Protocol):
    """Where ready jobs are taken from: one statement at a time."""

    def first(self, most: Mapping[str, int], limit: int) -> list[str]:
        """Return the queues of the jobs that come first, in order, up to ``limit``, and of each queue up to its ``most``."""

    def take(self, queue_name: str, limit: int) -> list[Row]:
        """Take the first jobs of a queue, without those that another worker is just taking."""


def share_out(source: Source, most: dict[str, int], limit: int, rooms: Rooms, limits: SharedLimits) -> list[Row]:
    """Take up to ``limit`` jobs: of each queue up to its ``most``, and what its row allows. Call it in a transaction.

    Jobs of a larger priority come first; among those of one priority the queues take turns, in the order of ``most``.
    """

    def take(name: str, number: int) -> list[Row]:
        if name not in rooms.shared:
            return source.take(name, number)
        return limits.claim(name, number, rooms, lambda allowed: source.take(name, allowed))

    if len(most) > 1:
        most = _without_exhausted(most, rooms, limits)
    if len(most) <= 1:
        return [row for name, room in most.items() for row in take(name, min(room, limit))]
    # Looked at before anything is locked: to lock ``limit`` rows of each queue would hide from other workers those
    # that are not taken.
    first = source.first(most, limit)
    shares = Counter(first)
    # In one order, so that two workers do not each hold the row that the other one wants.
    taken = {name: take(name, shares[name]) for name in sorted(shares)}
    left = limit - sum(map(len, taken.values()))
    if len(first) == limit:
        # Others in the place of those that another worker is just taking.
        for name, room in most.items():
            more = min(left, room - len(taken.get(name, ())))
            if more > 0:
                taken[name] = taken.get(name, []) + take(name, more)
                left = limit - sum(map(len, taken.values()))
    return [row for rows in taken.values() for row in rows]


def limits_of(jobs: JobQuerySet) -> SharedLimits:
    """Return the shared limits of a database, compiled when they are needed first."""
    limits = _limits.get(jobs.db)
    if limits is None:
        limits = _limits[jobs.db] = SharedLimits(jobs)
    return limits


def _without_exhausted(most: dict[str, int], rooms: Rooms, limits: SharedLimits) -> dict[str, int]:
    shared = rooms.shared & most.keys()
    if not shared:
        return most
    shares = limits.estimate(shared)
    allowed = {name: rooms.allowed(shares[name], most[name]) if name in shares else 0 for name in shared}
    return {name: room for name, room in (most | allowed).items() if room > 0}


class SharedLimits:
    """The limits that all workers of one database share, read from the rows of the queues."""

    def __init__(self, jobs: JobQuerySet) -> None:
        self._jobs, self._using = jobs, jobs.db
        self._is_compiled = can_compile(connections[jobs.db])
        if self._is_compiled:
            self._compile()

    def _compile(self) -> None:
        # Django compiles a query that locks only inside a transaction.
        with transaction.atomic(using=self._using):
            self._one = compile_select(self._rows().filter(name=_NAME), self._using, _LIMIT)
            self._many = compile_select(self._rows().filter(name=_NAMES), self._using, _LIMIT)
            lock = lock_free_rows(Queue.objects.using(self._using).filter(name=_NAME)).values_list("pk")
            self._lock = compile_select(lock, self._using, _LIMIT)
            spend = Queue.objects.using(self._using).filter(name=_NAME)
            self._spend = compile_update(spend, {"tokens": _TOKENS, "tokens_at": _NOW}, self._using) + " RETURNING 1"

    def estimate(self, names: Iterable[str]) -> dict[str, Share]:
        """Return the shares of these queues as they are now, without a lock."""
        return self._shares(list(names))

    def claim(self, name: str, most: int, rooms: Rooms, take: Callable[[int], list[Row]]) -> list[Row]:
        """Lock the queue's row, and ``take()`` as many of up to ``most`` jobs as it allows. Call it in a transaction."""
        if not self._has_locked(name):
            rooms.meet_other()
            return []
        # Another statement than the one that took the lock: it sees what its last holder has done.
        share = self._shares([name]).get(name)
        if share is None:
            return []
        allowed = rooms.allowed(share, most)
        rows = take(allowed) if allowed else []
        if rows and share.tokens is not None:
            self._take_tokens(name, share.tokens - len(rows), share.now)
        return rows

    def _has_locked(self, name: str) -> bool:
        if self._is_compiled:
            return bool(execute(connections[self._using], self._lock, {"name": name, "limit": 1}))
        return lock_free_rows(Queue.objects.using(self._using).filter(name=name)).exists()

    def _shares(self, names: list[str]) -> dict[str, Share]:
        rows: Iterable[Row]
        if not self._is_compiled:
            rows = self._rows().filter(name__in=names)
        elif len(names) == 1:
            rows = execute(connections[self._using], self._one, {"name": names[0], "limit": 1})
        else:
            rows = execute(connections[self._using], self._many, {"names": names, "limit": None})
        return {name: share_of(*values) for name, *values in rows}

    def _rows(self) -> QuerySet[Any, Any]:
        running = self._jobs.running().filter(queue_name=OuterRef("name")).order_by().values("queue_name")
        count = Coalesce(Subquery(running.annotate(count=Count("pk")).values("count")), 0)
        counted = Case(When(max_running__isnull=False, then=count), output_field=IntegerField())
        queues = Queue.objects.using(self._using).annotate(running=counted, now=Now()).order_by("name")
        return queues.values_list(
            "name", "max_running", "running", "rate_limit", "rate_window", "tokens", "tokens_at", "now"
        )

    def _take_tokens(self, name: str, tokens: float, now: datetime) -> None:
        if self._is_compiled:
            execute(connections[self._using], self._spend, {"name": name, "tokens": tokens, "now": now})
        else:
            Queue.objects.using(self._using).filter(name=name).update(tokens=tokens, tokens_at=now)


def share_of(
    max_running: int | None,
    running: int | None,
    rate_limit: int | None,
    rate_window: float | None,
    tokens: float | None,
    tokens_at: datetime | None,
    now: datetime,
) -> Share:
    """Return what a queue with these values allows at the moment ``now`` of the database's clock."""
    jobs, wait = _NO_LIMIT, None
    if max_running is not None:
        jobs = max_running - (running or 0)
    left = None
    if rate_limit and rate_window:
        left = tokens_left(rate_limit, rate_window, tokens, tokens_at, now)
        jobs = min(jobs, math.floor(left))
        if left < 1:
            wait = (1 - left) * rate_window / rate_limit
    return Share(jobs, wait, left, now)


def tokens_left(
    rate_limit: int, rate_window: float, tokens: float | None, tokens_at: datetime | None, now: datetime
) -> float:
    """Return how many tokens the bucket holds now: full at first, and never more than ``rate_limit``."""
    if tokens is None or tokens_at is None or not math.isfinite(tokens):
        return float(rate_limit)
    # A clock that was set back gives nothing, and takes nothing.
    passed = max((now - tokens_at).total_seconds(), 0.0)
    return min(float(rate_limit), tokens + passed * rate_limit / rate_window)
