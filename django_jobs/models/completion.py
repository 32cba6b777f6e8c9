"""Writing what became of attempts: outcomes in, verbs and history out, one transaction.

The successes of a turn are one UPDATE per attempt number. For anything else, and for successes that the fence
refused, the rows are first read under a lock; what is no longer ours by then is *late* and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Field, Q, Subquery
from django.db.models.functions import Now

from ..exceptions import JobCancelled, JobTimeout
from ..outcomes import Failure, Outcome
from ..states import AttemptOutcome, JobState
from .attempt import Attempt
from .database import exclusive, lock_rows
from .job import Job
from .result import Result

_HISTORY = {
    "fail": AttemptOutcome.FAILED,
    "retry": AttemptOutcome.FAILED,
    "snooze": AttemptOutcome.SNOOZED,
    "postpone": AttemptOutcome.POSTPONED,
    "cancel": AttemptOutcome.CANCELLED,
    "release": AttemptOutcome.INTERRUPTED,
}


@dataclass(slots=True)
class Written:
    """What became of outcomes: those that took effect, as they did, and those that came too late."""

    done: list[Outcome] = field(default_factory=list)
    late: list[Outcome] = field(default_factory=list)


def write_outcomes(worker_id: str, outcomes: Sequence[Outcome]) -> Written:
    """Write the outcomes of one worker's attempts. Call it inside ``exclusive()``."""
    written = Written(done=[outcome for outcome in outcomes if outcome.is_written])
    outcomes = [outcome for outcome in outcomes if not outcome.is_written]
    for outcome in outcomes:
        _save_meta(worker_id, outcome)
    refused = _write_successes(worker_id, [outcome for outcome in outcomes if outcome.verb == "succeed"], written)
    others = [outcome for outcome in outcomes if outcome.verb != "succeed"]
    if refused or others:
        _write_one_by_one_verbs(worker_id, [*refused, *others], written)
    return written


def write_own_success(outcome: Outcome) -> bool:
    """Write the success of an atomic job, inside the transaction in which it ran; say whether the fence let it through.

    If not, somebody has asked to cancel the job or it is no longer this worker's: the transaction must be rolled back.
    """
    _save_meta(outcome.job.worker_id, outcome)
    return not _write_successes(outcome.job.worker_id, [outcome], Written())


def write_progress(worker_id: str, progress: Mapping[int, Any]) -> None:
    """Show how far running jobs of this worker are."""
    for job_id, value in progress.items():
        Job.objects.held_by(worker_id).filter(pk=job_id).update(progress=value)


def give_back_unknown(worker_id: str, known: Collection[int]) -> int:
    """Release the running jobs of this worker that it does not know; return how many there were."""
    unknown = Job.objects.held_by(worker_id).exclude(pk__in=known).order_by("pk")
    if not unknown.exists():
        return 0
    with exclusive():
        rows = list(lock_rows(unknown).values("pk", "attempt"))
        Attempt.objects.bulk_create(
            [
                Attempt(
                    job_id=row["pk"],
                    number=row["attempt"],
                    worker_id=worker_id,
                    started_at=start_of_attempt(row["pk"]),
                    ended_at=Now(),
                    outcome=AttemptOutcome.INTERRUPTED,
                    message="The worker did not know that it held this job: the answer to its claim was lost.",
                )
                for row in rows
            ]
        )
        return Job.objects.release(worker_id, [row["pk"] for row in rows])


def _save_meta(worker_id: str, outcome: Outcome) -> None:
    if outcome.meta is not None:
        held = Job.objects.held_by(worker_id).filter(pk=outcome.job.id, attempt=outcome.job.attempt)
        held.update(meta=outcome.meta)


def start_of_attempt(job_id: int) -> Subquery:
    """Return when a running job was claimed, for its history: copied in the database, since Python may not be able to read it."""
    return Subquery(Job.objects.filter(pk=job_id).values("last_attempted_at"))


def _write_successes(worker_id: str, outcomes: Sequence[Outcome], written: Written) -> list[Outcome]:
    """Write the successes that the fence lets through; return the others."""
    refused: list[Outcome] = []
    for attempt in sorted({outcome.job.attempt for outcome in outcomes}):
        group = [outcome for outcome in outcomes if outcome.job.attempt == attempt]
        ids = [outcome.job.id for outcome in group]
        if Job.objects.succeed(worker_id, attempt, ids) < len(ids):
            ours = Job.objects.filter(pk__in=ids, worker_id=worker_id, attempt=attempt, state=JobState.SUCCEEDED)
            succeeded = set(ours.values_list("pk", flat=True))
            refused += [outcome for outcome in group if outcome.job.id not in succeeded]
            group = [outcome for outcome in group if outcome.job.id in succeeded]
        written.done += group
        results = [
            Result(job_id=outcome.job.id, value=outcome.result) for outcome in group if outcome.result is not None
        ]
        if results:
            # A job that was requeued after it had succeeded has an older result.
            Result.objects.bulk_create(results, update_conflicts=True, unique_fields=["job"], update_fields=["value"])
    return refused


def _write_one_by_one_verbs(worker_id: str, outcomes: Sequence[Outcome], written: Written) -> None:
    rows = lock_held(worker_id, [outcome.job.id for outcome in outcomes])
    ours: list[Outcome] = []
    for outcome in outcomes:
        row = rows.get(outcome.job.id)
        if row is None or row["attempt"] != outcome.job.attempt:
            written.late.append(outcome)
        elif row["is_to_be_cancelled"] and outcome.verb != "cancel":
            ours.append(_as_cancelled(outcome))
        else:
            ours.append(outcome)
    _record(ours)
    for verb in ("fail", "cancel", "retry", "snooze", "postpone", "release"):
        _move(worker_id, verb, [outcome for outcome in ours if outcome.verb == verb])
    written.done += ours


def lock_held(worker_id: str, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Lock the rows among ``ids`` that the worker still holds; return attempt and ``is_to_be_cancelled`` by id."""
    held = lock_rows(Job.objects.held_by(worker_id).filter(pk__in=list(ids)).order_by("pk"))
    # Not the time itself: it may be one that Python cannot read.
    is_to_be_cancelled = ExpressionWrapper(Q(cancel_requested_at__isnull=False), output_field=BooleanField())
    rows = held.values("pk", "attempt", is_to_be_cancelled=is_to_be_cancelled)
    return {row["pk"]: dict(row) for row in rows}


def _move(worker_id: str, verb: str, outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    ids = [outcome.job.id for outcome in outcomes]
    delays = {outcome.job.id: outcome.delay for outcome in outcomes}
    match verb:
        case "fail":
            Job.objects.fail(worker_id, ids)
        case "cancel":
            Job.objects.cancel_held(worker_id, ids)
        case "retry":
            Job.objects.retry(worker_id, delays)
        case "snooze":
            Job.objects.snooze(worker_id, delays)
        case "postpone":
            Job.objects.postpone(worker_id, delays)
        case "release":
            Job.objects.release(worker_id, ids)


def _as_cancelled(outcome: Outcome) -> Outcome:
    """Return the outcome of a job that somebody asked to cancel while it ran: it never ends otherwise."""
    reason = "The job was cancelled while it was running."
    if outcome.failure.message:
        reason += f" It ended with: {outcome.failure.message}"
    failure = Failure("django_jobs.exceptions.JobCancelled", reason, outcome.failure.traceback)
    return outcome._replace(verb="cancel", result=None, failure=failure, exception=JobCancelled(reason))


def _record(outcomes: Sequence[Outcome]) -> None:
    Attempt.objects.bulk_create([_attempt(outcome) for outcome in outcomes])


def _attempt(outcome: Outcome) -> Attempt:
    job, failure = outcome.job, outcome.failure
    longest = {name: _max_length(name) for name in ("exception_class", "fingerprint")}
    return Attempt(
        job_id=job.id,
        number=job.attempt,
        worker_id=job.worker_id,
        started_at=job.last_attempted_at,
        ended_at=Now(),
        outcome=_as_history(outcome),
        exception_class=failure.exception_class[: longest["exception_class"]],
        message=failure.message,
        traceback=failure.traceback,
        fingerprint=failure.fingerprint[: longest["fingerprint"]],
    )


def _as_history(outcome: Outcome) -> AttemptOutcome:
    if isinstance(outcome.exception, JobTimeout) and outcome.verb in ("fail", "retry"):
        return AttemptOutcome.TIMED_OUT
    return _HISTORY[outcome.verb]


def _max_length(name: str) -> int | None:
    column: Field[Any, Any] = Attempt._meta.get_field(name)  # type: ignore[assignment]
    return column.max_length
