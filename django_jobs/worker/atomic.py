"""Atomic jobs: what the function writes to the jobs database and the end of the job are one transaction.

::

    BEGIN
    the function, with the middleware around it
    UPDATE: the job has succeeded, if it is still this worker's and nobody has asked to cancel it
    COMMIT

A worker that dies before the COMMIT leaves nothing behind, one that dies after it leaves a job that is done. Whatever the
function raises rolls everything back, and becomes an outcome as that of any other job. The thread writes the success
itself, on the connection that the function uses; the exchange is told afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import DatabaseError, transaction

from .. import conf
from ..exceptions import UnknownTask
from ..models.completion import write_own_success
from ..models.database import exclusive
from ..outcomes import ClaimedJob, Failure, Outcome
from ..states import AttemptOutcome
from ..task import find_task
from .failures import describe_failure
from .outbox import is_passing

# Seconds until an attempt is made again that the database did not let begin or end.
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
# Then it counts: a job that the database never lets end must not run for ever. Under REPEATABLE READ that is one that
# shows progress, since its row changes after its snapshot.
_MOST_EXCUSES = 10

logger = logging.getLogger("django_jobs")

_REFUSED = Failure(
    "django_jobs.exceptions.JobInterrupted",
    "The job was taken from this worker, or somebody asked to cancel it, before it could commit: it was rolled back.",
)


class _RolledBack(Exception):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def is_atomic(job: ClaimedJob) -> bool:
    """Say whether the job's task was declared with ``atomic=True``."""
    try:
        return getattr(find_task(job.task_path), "atomic", False)
    except UnknownTask:
        return False


def run_atomically(job: ClaimedJob, attempt: Callable[[], Outcome]) -> Outcome:
    """Run an attempt and write its success in one transaction; return the outcome, written if it is a success.

    Raise what the attempt raises, and what the database says against its values at the commit, with everything rolled
    back. What the database's state keeps us from (a lock, a lost connection), before or after the function ran, does not
    count against the job: it is tried again, later each time.
    """
    has_committed: list[Outcome] = []
    is_in_function = False
    try:
        with exclusive():
            # The first of the callbacks: so it is called also if one of the job's own raises.
            transaction.on_commit(lambda: has_committed.append(written), using=conf.database())
            is_in_function = True
            outcome = attempt()
            is_in_function = False
            if outcome.verb != "succeed":
                raise _RolledBack(outcome)
            if not write_own_success(outcome):
                # Which of the two it was, whoever writes the outcome finds out.
                raise _RolledBack(outcome._replace(verb="release", result=None, failure=_REFUSED, meta=None))
            written = outcome._replace(is_written=True)
    except _RolledBack as rolled_back:
        return rolled_back.outcome
    except BaseException as error:
        if has_committed:
            logger.exception("Job %s has succeeded, but what it had left for after its commit raised.", job.id)
            return written
        snoozed = sum(past.outcome == AttemptOutcome.SNOOZED for past in job.history)
        is_its_own = is_in_function or not isinstance(error, DatabaseError) or not is_passing(error)
        if is_its_own or snoozed >= _MOST_EXCUSES:
            raise
        delay = min(_FIRST_DELAY * 2.0**snoozed, _LONGEST_DELAY)
        return Outcome(job, "snooze", delay=delay, failure=describe_failure(error), exception=error)
    return written
