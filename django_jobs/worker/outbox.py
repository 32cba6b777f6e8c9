"""Outcomes on their way from the threads that made them to the transaction that writes them. None is lost on the way.

An outcome waits until a commit has settled it. One that the database refuses, or that cannot be made into JSON, spoils
itself only: then each is written in a transaction of its own, and that one is written as a failure.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from queue import Empty, SimpleQueue

from django.db import DatabaseError, OperationalError

from ..exceptions import JobCancelled
from ..models.completion import Written, write_outcomes
from ..models.database import exclusive
from ..models.turn import Success
from ..outcomes import ClaimedJob, Failure, Outcome
from .failures import describe_failure

logger = logging.getLogger("django_jobs")

# How soon (seconds) an outcome is written again that was refused in every form.
TRY_AGAIN_AFTER = 30

_GIVEN_BACK = Failure("django_jobs.exceptions.JobInterrupted", "The worker gave the job back before it was done.")
_CANCELLED = Failure("django_jobs.exceptions.JobCancelled", "The job was cancelled before it began.")


class Outbox:
    """The outcomes of one worker that are not written yet."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._arrivals: SimpleQueue[Outcome] = SimpleQueue()
        self._waiting: list[Outcome] = []
        # Refused in every form, until somebody has put the database right.
        self._aside: list[Outcome] = []
        self._again_at = 0.0

    def put(self, outcome: Outcome) -> None:
        """Take an outcome. Any thread may call this; all else is the exchange's."""
        self._arrivals.put(outcome)

    @property
    def has_arrivals(self) -> bool:
        return not self._arrivals.empty()

    def collect(self) -> list[Outcome]:
        """Let what has arrived wait for the next transaction, and return it."""
        arrived: list[Outcome] = []
        if self._aside and time.monotonic() >= self._again_at:
            self._waiting, self._aside = self._waiting + self._aside, []
        while True:
            try:
                arrived.append(self._arrivals.get_nowait())
            except Empty:
                self._waiting += arrived
                return arrived

    def already_written(self) -> Written:
        """Return what waits of jobs that have written their own end, to be settled before anything is written."""
        return Written(done=[outcome for outcome in self._waiting if outcome.is_written])

    def give_back(self, jobs: Iterable[ClaimedJob]) -> None:
        """Let the release of these jobs wait for the next transaction."""
        self._waiting += [Outcome(job, "release", failure=_GIVEN_BACK) for job in jobs]

    def cancel(self, jobs: Iterable[ClaimedJob]) -> None:
        """Let the end of these jobs, which have not begun, wait for the next transaction."""
        self._waiting += [Outcome(job, "cancel", failure=_CANCELLED, exception=JobCancelled()) for job in jobs]

    @property
    def waiting(self) -> Collection[Outcome]:
        return self._waiting

    def plain_successes(self) -> list[Success] | None:
        """Return ``(id, attempt, result as JSON)`` of what waits if all of it has just succeeded; else None."""
        plain = [
            (one.job.id, one.job.attempt, None if one.result is None else json.dumps(one.result))
            for one in self._waiting
            if one.verb == "succeed" and one.meta is None
        ]
        return plain if len(plain) == len(self._waiting) else None

    def without_waiting(self, jobs: Collection[ClaimedJob]) -> list[ClaimedJob]:
        """Return those of the jobs whose outcome does not wait here."""
        if not (self._waiting or self._aside):
            return list(jobs)
        ids = {outcome.job.id for outcome in (*self._waiting, *self._aside)}
        return [job for job in jobs if job.id not in ids]

    def write(self) -> Written:
        """Write what waits. Call it inside ``exclusive()``, and ``settle()`` after the commit."""
        return write_outcomes(self._worker_id, self._waiting)

    def settle(self, written: Written) -> None:
        """Let go of what a commit has settled: written, or too late for it."""
        if not (written.done or written.late):
            return
        for outcome in written.late:
            logger.warning(
                "Job %s, attempt %s: %s came too late; somebody else has the job, or ended it.",
                outcome.job.id, outcome.job.attempt, outcome.verb,
            )  # fmt: skip
        if len(written.done) + len(written.late) == len(self._waiting):
            self._waiting = []
            return
        settled = {(outcome.job.id, outcome.job.attempt) for outcome in (*written.done, *written.late)}
        self._waiting = [one for one in self._waiting if (one.job.id, one.job.attempt) not in settled]

    def write_each(self, error: Exception) -> Iterator[Written]:
        """Write what waits one by one, because all together were refused; yield each after its commit, to be settled.

        One that is not even taken as a failure is put aside: it must keep neither the others nor the next claim.
        """
        logger.warning("A batch of outcomes was refused, they are written one by one: %s", error)
        for outcome in list(self._waiting):
            try:
                written = self._write_one(outcome)
            except REFUSALS as refusal:
                if is_passing(refusal):
                    raise
                self._put_aside(outcome, refusal)
            else:
                yield written

    def _put_aside(self, outcome: Outcome, refusal: Exception) -> None:
        logger.error(
            "Job %s, attempt %s: the database refuses its outcome, also as a failure. It is tried again every %d s: %s",
            outcome.job.id, outcome.job.attempt, TRY_AGAIN_AFTER, refusal,
        )  # fmt: skip
        self._waiting = [waiting for waiting in self._waiting if waiting is not outcome]
        self._aside.append(outcome)
        self._again_at = time.monotonic() + TRY_AGAIN_AFTER

    def _write_one(self, outcome: Outcome) -> Written:
        try:
            with exclusive():
                return write_outcomes(self._worker_id, [outcome])
        except REFUSALS as refusal:
            if is_passing(refusal):
                raise
            failure = describe_failure(refusal)
            failed = Outcome(outcome.job, "fail", outcome.duration, failure=failure, exception=refusal)
            with exclusive():
                return write_outcomes(self._worker_id, [failed])


# What a bad value leads to: an error of the database, or one in making JSON of it.
REFUSALS = (DatabaseError, TypeError, ValueError)

# Classes of SQLSTATE: what no try will fit into the database (the driver calls it operational), and what an administrator
# can put right (read-only or broken transactions, no permission, a table or column that is not there, internal errors).
_BEYOND_LIMITS = "54"
_PASSING = ("25", "42501", "42P01", "42703", "XX")


def is_passing(error: Exception) -> bool:
    """Say whether the error has to do with the database's state, not with a value: it will be tried again."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    if isinstance(error, OperationalError):
        return not state.startswith(_BEYOND_LIMITS)
    return state.startswith(_PASSING)
