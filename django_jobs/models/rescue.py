"""Taking jobs from dead workers, in one transaction with marking the workers as lost.

A worker that dies does not say which of its jobs killed it. Who is charged with the attempt is decided by what has
crashed before:

- The first crash of a job counts, whichever it was. Most crashes are nobody's fault, and most jobs see no second one.
- Of the jobs of one worker those that had crashed before are suspects. A single one is charged. Of several nobody knows
  which it was, also where one has crashed more often: that may have been beside another. None of them is charged.
- Suspects are set apart, so that they do not meet again: the one with the most crashes runs at once, or, of several, half
  of them, those that began last before the others; the rest waits, twice as long with each crash.

So a job that kills its worker each time ends as failed after its attempts, and a few more while it is being found: each
time halves the suspects. A job that only ran beside it is charged once for it. No job is excused more than MOST_DOUBTS
times, whatever happens: none loops.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db.models import Count, TextField
from django.db.models.functions import Cast, Now

from .. import notifications, signals
from ..outcomes import Fate
from ..states import AttemptOutcome, JobState
from .admission import offer
from .attempt import Attempt
from .completion import start_of_attempt
from .database import exclusive, lock_free_rows
from .job import Job
from .worker import Worker

# A worker holds tens of jobs, rarely thousands; the rest follows with the next pass.
RESCUE_BATCH = 1000

# How long a suspect waits after its second crash, so that another is gone when it runs, and the longest wait (seconds).
FIRST_APART, LONGEST_APART = 10.0, 3600.0
# Ten halvings find one job among a thousand.
MOST_DOUBTS = 10

_COLUMNS = (
    "pk", "attempt", "max_attempts", "worker_id", "task_path", "queue_name", "concurrency_key", "concurrency_limit",
)  # fmt: skip
# As text, which sorts as well: it may be a time that Python cannot read.
_BEGAN = Cast("last_attempted_at", TextField())
_EXCUSE = " It does not count: another job of this worker, which had crashed before too, may have been the cause."

Orphan = dict[str, Any]


def rescue_lost(dead: Collection[str] = (), reason: str = "It sent no sign of life until its lease had ended.") -> int:
    """Mark workers without a live lease, and those known to be dead, as lost; take their running jobs.

    Return how many jobs were taken. Each gets an Attempt "crashed" that gives ``reason``. Safe to run at
    any time and twice at once: the rows are locked, and late writers are fenced off.
    """
    with exclusive():
        lost = Worker.objects.mark_lost(dead)
        # In the order of their index, also where it is not of one worker: for that of the key, SQLite would walk through the
        # whole table.
        rows = lock_free_rows(Job.objects.orphans().order_by("worker_id", "pk"))
        orphans: list[Orphan] = list(rows.values(*_COLUMNS, began=_BEGAN)[:RESCUE_BATCH])
        if orphans:
            fates = _fates(orphans)
            _record_crash(orphans, fates, reason)
            Job.objects.rescue(fates)
            offer(Job.objects.all(), {row["concurrency_key"]: row["concurrency_limit"] for row in orphans})
        for queue_name in {row["queue_name"] for row in orphans}:
            notifications.hint(notifications.READY, queue_name)
    _announce(lost, orphans)
    return len(orphans)


def _fates(orphans: Sequence[Orphan]) -> dict[int, Fate]:
    """Decide what becomes of each of these jobs, which are sorted by worker."""
    again = [row["pk"] for row in orphans if row["attempt"] > 1]
    crashed = Attempt.objects.filter(job_id__in=again, outcome=AttemptOutcome.CRASHED).order_by()
    crashes = dict(crashed.values_list("job_id").annotate(Count("pk")))
    fates = {row["pk"]: _charged(row) for row in orphans}
    for _worker_id, held in groupby(orphans, itemgetter("worker_id")):
        suspects = [row for row in held if row["pk"] in crashes]
        if suspects:
            fates.update(_set_apart(suspects, crashes))
    return fates


def _charged(orphan: Orphan, delay: float = 0.0) -> Fate:
    if orphan["attempt"] >= orphan["max_attempts"]:
        return Fate(ends=True)
    return Fate(delay=delay)


def _set_apart(suspects: Iterable[Orphan], crashes: Mapping[int, int]) -> Iterator[tuple[int, Fate]]:
    """Yield the fates of the jobs of one worker that had crashed before."""
    ranked = sorted(suspects, key=lambda row: _suspicion(row, crashes), reverse=True)
    most = crashes[ranked[0]["pk"]]
    tied = sum(crashes[row["pk"]] == most for row in ranked)
    at_once = max(1, tied // 2)
    for place, row in enumerate(ranked):
        earlier = crashes[row["pk"]]
        is_charged = len(ranked) == 1 or earlier > MOST_DOUBTS
        delay = 0.0
        if place >= at_once:
            # One after the other, so that a job that kills at once is then the one that began last.
            delay = min(FIRST_APART * 2 ** min(earlier - 1, 20), LONGEST_APART)
            delay *= 1 + (place - at_once) / (len(ranked) - at_once)
        yield row["pk"], _charged(row, delay) if is_charged else Fate(counts=False, delay=delay)


def _suspicion(orphan: Orphan, crashes: Mapping[int, int]) -> tuple[Any, ...]:
    # At random among equals: in a fixed order one that waits, and finds the others still running, would always wait.
    return crashes[orphan["pk"]], orphan["began"] or "", random.random()


def _record_crash(orphans: Sequence[Orphan], fates: Mapping[int, Fate], reason: str) -> None:
    Attempt.objects.bulk_create(
        [
            Attempt(
                job_id=row["pk"],
                number=row["attempt"],
                worker_id=row["worker_id"],
                started_at=start_of_attempt(row["pk"]),
                ended_at=Now(),
                outcome=AttemptOutcome.CRASHED,
                exception_class="django_jobs.exceptions.WorkerLost",
                message=f"Worker {row['worker_id']} was lost while it held this job. {reason}"
                + ("" if fates[row["pk"]].counts else _EXCUSE),
            )
            for row in orphans
        ],
        ignore_conflicts=True,
    )


def _announce(lost: Sequence[str], orphans: Sequence[Orphan]) -> None:
    for worker_id in lost:
        signals.send(signals.worker_lost, Worker, worker_id=worker_id)
    if not orphans or not signals.job_rescued.receivers:
        return
    states = dict(Job.objects.filter(pk__in=[row["pk"] for row in orphans]).values_list("pk", "state"))
    for row in orphans:
        # Somebody may have deleted it since.
        if (state := states.get(row["pk"])) is not None:
            told = {name: row[name] for name in ("task_path", "queue_name", "attempt", "worker_id")}
            signals.send(signals.job_rescued, Job, job_id=row["pk"], state=JobState(state), **told)
