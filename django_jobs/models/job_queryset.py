"""The verbs: every way in which a job changes its state. The only writer of ``Job.state``.

Each verb is a guarded UPDATE that says how many rows it moved. A worker's verbs are fenced by id, worker_id
and attempt, and every way out of RUNNING that is not the worker's own clears ``worker_id``: a late writer matches
nothing. ``states.TRANSITIONS`` is the same as a table; ``completion`` turns outcomes into calls of these verbs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Case, DurationField, Exists, F, Q, Value, When
from django.db.models.functions import Coalesce, Greatest, Now

from .. import notifications, signals
from ..exceptions import LeaseLost
from ..outcomes import ClaimedJob, Fate
from ..states import UNSTARTED, JobState
from . import insert
from .claim import ANY, Kind, lock_candidates, with_history
from .compiled import can_compile
from .database import exclusive, from_now, lock_free_rows
from .insert import Added, NewJob, Options, can_insert_values
from .job_scopes import JobScopes
from .marks import Marks
from .result import Result
from .turn import Success, turn_of
from .unique import arguments, replacement, requeue_keyed
from .worker import Worker

if TYPE_CHECKING:
    from .job import Job

# 500 keeps each DELETE well under a second, so that claims and autovacuum never wait long behind it.
PRUNE_BATCH = 500

# For how long a lease must go on after a claim: nobody takes the jobs before the claim has committed.
LEASE_MARGIN = timedelta(milliseconds=200)

# Rows, and what is to be changed in them.
Update = tuple["JobQuerySet", dict[str, Any]]


class JobQuerySet(JobScopes):
    # Enqueue

    def add(self, jobs: Sequence[NewJob]) -> Added:
        """Insert new jobs: scheduled where there is a time to wait for, else ready; then hint to the workers.

        A single job whose unique key is taken is left out; of several none has one. ``unique.add_unique`` takes them all.
        """
        connection = connections[self.db]
        options = {id(job.options): job.options for job in jobs}.values()
        hints = {each.hint for each in options}
        if not can_insert_values(connection):
            added = self._save(jobs)
            hints = hints if added.ids else set()
        elif len(jobs) == 1:
            return insert.insert_with_hint(connection, jobs[0], _first_state(jobs[0].options), *hints.pop())
        else:
            added = insert.insert_rows(connection, jobs, _first_state)
        for kind, name in hints:
            notifications.hint(kind, name)
        return added

    def add_if_free(self, jobs: Sequence[NewJob], ids: Sequence[int]) -> Added:
        """Insert new jobs with these ids, but for those whose unique key is taken; return what was inserted."""
        added = insert.insert_free_rows(connections[self.db], jobs, ids, _first_state)
        inserted = set(added.ids)
        for kind, name in {job.options.hint for job, pk in zip(jobs, ids, strict=True) if pk in inserted}:
            notifications.hint(kind, name)
        return added

    def _save(self, jobs: Sequence[NewJob]) -> Added:
        rows = [self._instance(job) for job in jobs]
        if jobs[0].unique_key is not None:
            try:
                with transaction.atomic(using=self.db):
                    rows[0].save(force_insert=True, using=self.db)
            except IntegrityError:
                return Added([], [])
        elif len(rows) == 1:
            rows[0].save(force_insert=True, using=self.db)
        else:
            self.bulk_create(rows, batch_size=1000)  # type: ignore[arg-type]
        return Added([row.pk for row in rows], [row.enqueued_at for row in rows])

    def _instance(self, job: NewJob) -> Job:
        row: Job = insert.as_row(self.model, job)
        row.state = _first_state(job.options)
        return row

    def as_added(self, job: NewJob, pk: int, enqueued_at: datetime) -> Job:
        """Return the row of a job that has just been inserted, without a query."""
        row = self._instance(job)
        row.pk, row.enqueued_at = pk, enqueued_at
        if job.options.delay is not None:
            row.run_after = enqueued_at + job.options.delay
        if job.options.unique_for is not None:
            row.unique_until = enqueued_at + job.options.unique_for
        row._state.adding, row._state.db = False, self.db
        return row

    def replace(self, options: Options, calls: Mapping[int, NewJob]) -> int:
        """Give these jobs, of which none may have started, the options and arguments of new calls, by id."""
        jobs = self.filter(pk__in=calls, state__in=UNSTARTED)
        queues = set(jobs.order_by().values_list("queue_name", flat=True).distinct())
        moved = jobs.update(state=_state_of_replaced(options), **replacement(options), **arguments(self, calls))
        for hint in {options._replace(queue_name=queue_name).hint for queue_name in queues}:
            notifications.hint(*hint)
        return moved

    # Verbs of a worker

    def claim(self, worker_id: str, queue_names: Sequence[str], limit: int, kind: Kind = ANY) -> list[ClaimedJob]:
        """Take up to ``limit`` ready jobs of these queues for a worker whose lease is live, in their order.

        Call it inside ``exclusive()``. Raise LeaseLost, having taken nothing, if the lease has ended.
        """
        if can_compile(connections[self.db]):
            return self.take_turn(worker_id, (), queue_names, limit, kind)[1]
        rows = lock_candidates(kind.of(self.ready()), queue_names, limit)
        if not rows:
            return []
        taken, changes = self.taking(worker_id, pk__in=[row[0] for row in rows])
        moved = taken.update(**changes)
        if moved != len(rows):
            raise LeaseLost(f"The lease of worker {worker_id!r} has ended; it claims nothing more.")
        return with_history(rows, worker_id, self.db)

    def take_turn(
        self,
        worker_id: str,
        succeeded: Sequence[Success],
        queue_names: Sequence[str],
        limit: int,
        kind: Kind = ANY,
        marks: Marks | None = None,
    ) -> tuple[int, list[ClaimedJob]]:
        """Do ``succeed`` for each ``(id, attempt)`` and ``claim`` as one statement, where ``can_compile()`` says so.

        Return how many the fence let through, and the claimed jobs. For ``marks`` see there.
        """
        done, rows = turn_of(self, kind).take(worker_id, succeeded, queue_names, limit, marks)
        return done, with_history(rows, worker_id, self.db)

    def taking(self, worker_id: Any, **chosen: Any) -> Update:
        """Return the claim of the chosen jobs, which are locked, if the worker's lease is live."""
        lease = Worker.objects.using(self.db).leased(LEASE_MARGIN).filter(worker_id=worker_id)
        changes = {
            "state": JobState.RUNNING,
            "attempt": F("attempt") + 1,
            "worker_id": worker_id,
            "last_attempted_at": Now(),
            "started_at": Coalesce("started_at", Now()),
            "progress": None,
        }
        return self.filter(Exists(lease), **chosen), changes

    def succeed(self, worker_id: str, attempt: int, ids: Collection[int]) -> int:
        """Finish this attempt of these jobs, except those that somebody has asked to cancel."""
        rows, changes = self.finishing(worker_id, attempt, pk__in=ids)
        return rows.update(**changes)

    def finishing(self, worker_id: Any, attempt: Any, **ids: Any) -> Update:
        """Return the end of this attempt of jobs that have succeeded."""
        # The fence alone, without the state: with it the planner may walk the index of running jobs, which is
        # full of dead entries while a transaction is held open elsewhere. What has ended has a finished_at.
        fenced = self.filter(worker_id=worker_id, attempt=attempt, finished_at=None, cancel_requested_at=None, **ids)
        return fenced, {"state": JobState.SUCCEEDED, "finished_at": Now()}

    def fail(self, worker_id: str, ids: Collection[int]) -> int:
        """End these jobs of the worker as failed; they stay as the dead-letter set."""
        return self.held_by(worker_id).filter(pk__in=ids).update(state=JobState.FAILED, finished_at=Now())

    def cancel_held(self, worker_id: str, ids: Collection[int]) -> int:
        """End these running jobs of the worker as cancelled."""
        return (
            self.held_by(worker_id)
            .filter(pk__in=ids)
            .update(state=JobState.CANCELLED, finished_at=Now(), unique_until=None)
        )

    def retry(self, worker_id: str, delays: Mapping[int, float]) -> int:
        """Schedule these jobs of the worker again, each after its delay in seconds."""
        return self._schedule(self.held_by(worker_id), delays)

    def snooze(self, worker_id: str, delays: Mapping[int, float]) -> int:
        """Schedule these jobs of the worker again, each after its delay; this attempt does not count."""
        return self._schedule(self.held_by(worker_id), delays, max_attempts=F("max_attempts") + 1)

    def postpone(self, worker_id: str, delays: Mapping[int, float]) -> int:
        """Schedule these jobs again, which the worker's code cannot run; this attempt does not count."""
        return self._schedule(self.held_by(worker_id), delays, max_attempts=F("max_attempts") + 1)

    def _schedule(self, held: JobQuerySet, delays: Mapping[int, float], **changes: Any) -> int:
        delay = Case(
            *(When(pk=pk, then=Value(timedelta(seconds=seconds))) for pk, seconds in delays.items()),
            output_field=DurationField(),
        )
        waiting = {"state": JobState.SCHEDULED, "worker_id": "", "run_after": from_now(delay)}
        moved = held.filter(pk__in=delays).update(**waiting, **changes)
        if moved:
            notifications.hint(notifications.DUE)
        return moved

    def release(self, worker_id: str, ids: Collection[int]) -> int:
        """Give these jobs of the worker back unharmed: ready at once, and this attempt does not count."""
        held = self.held_by(worker_id).filter(pk__in=ids)
        moved = held.exclude(cancel_requested_at=None).update(
            state=JobState.CANCELLED, finished_at=Now(), unique_until=None, worker_id=""
        )
        queues = set(held.values_list("queue_name", flat=True))
        moved += held.update(state=JobState.READY, worker_id="", max_attempts=F("max_attempts") + 1)
        for queue_name in queues:
            notifications.hint(notifications.READY, queue_name)
        return moved

    # Verbs of the leader

    def stage_due(self, limit: int = 1000) -> int:
        """Make due jobs ready, the longest due first, and hint to the workers."""
        with exclusive():
            rows = list(lock_free_rows(self.due().order_by("run_after", "id")).values_list("pk", "queue_name")[:limit])
            moved = self.due().filter(pk__in=[pk for pk, _ in rows]).update(state=JobState.READY)
            for queue_name in {queue_name for _, queue_name in rows}:
                notifications.hint(notifications.READY, queue_name)
        return moved

    def rescue(self, fates: Mapping[int, Fate]) -> dict[JobState, int]:
        """Take these orphans from their dead workers: cancelled if somebody asked for it, else as the fate of each says.

        Call it with the rows locked, in the transaction that marked the workers as lost; ``rescue.rescue_lost`` does.
        """
        orphans = self.running().filter(pk__in=fates)
        ended = {"finished_at": Now(), "worker_id": ""}
        cancelled = orphans.exclude(cancel_requested_at=None).update(
            state=JobState.CANCELLED, unique_until=None, **ended
        )
        failed = orphans.filter(pk__in=[pk for pk, fate in fates.items() if fate.ends])
        excused = orphans.filter(pk__in=[pk for pk, fate in fates.items() if not fate.counts])
        excused.update(max_attempts=F("max_attempts") + 1)
        delays = {pk: fate.delay for pk, fate in fates.items() if fate.delay}
        return {
            JobState.CANCELLED: cancelled,
            JobState.FAILED: failed.update(state=JobState.FAILED, **ended),
            JobState.SCHEDULED: self._schedule(orphans, delays) if delays else 0,
            JobState.READY: orphans.update(state=JobState.READY, worker_id=""),
        }

    def prune(self, limit: int = PRUNE_BATCH) -> int:
        """Delete up to ``limit`` prunable jobs of this queryset with their history. Safe to run twice at once."""
        with exclusive():
            rows = lock_free_rows(self.prunable().order_by("finished_at"))
            ids = list(rows.values_list("pk", flat=True)[:limit])
            # Locked and finished: a requeue of one of them waits, and then finds it gone.
            self.model.objects.using(self.db).filter(pk__in=ids).only("pk").delete()
        if ids:
            signals.send(signals.jobs_pruned, self.model, count=len(ids))
        return len(ids)

    # Verbs of a person, and of code

    def stage(self) -> int:
        """Make the scheduled jobs of this queryset ready now."""
        return self._make_ready(self.filter(state=JobState.SCHEDULED), run_after=Now())

    def cancel(self) -> int:
        """Cancel the unfinished jobs of this queryset; return how many were cancelled or asked to stop.

        One that has not started is cancelled at once; a running one is asked to stop, by way of its worker.
        """
        unstarted = (
            list(self.filter(state__in=UNSTARTED).values_list("pk", flat=True)) if _has_cancel_receivers() else []
        )
        is_running = Q(state=JobState.RUNNING)
        # One statement: between two, a job could be given back, or claimed, past both.
        moved = self.unfinished().update(
            state=Case(When(is_running, then=F("state")), default=Value(JobState.CANCELLED)),
            finished_at=Case(When(~is_running, then=Now())),
            # Whoever cancels a job wants it gone: its key is free, or as soon as it has stopped.
            unique_until=Case(When(is_running, then=F("unique_until"))),
            cancel_requested_at=Case(When(is_running, then=Coalesce("cancel_requested_at", Now()))),
        )
        if moved:
            notifications.hint(notifications.CANCEL)
        self._announce_cancelled(unstarted)
        return moved

    def _announce_cancelled(self, ids: Collection[int]) -> None:
        """Tell the receivers which of these jobs were cancelled before they had started."""
        if not ids:
            return
        nothing = dict.fromkeys(("task_path", "queue_name", "attempt", "worker_id", "duration", "exception"))
        jobs = self.model.objects.using(self.db).filter(pk__in=ids, state=JobState.CANCELLED)
        for pk in jobs.values_list("pk", flat=True):
            signals.send(signals.job_cancelled, self.model, job_id=pk, **nothing)

    def requeue(self) -> int:
        """Run the finished jobs of this queryset again, each with at least one attempt more.

        One whose unique key another job has by now stays as it is.
        """
        finished = self.finished()
        with transaction.atomic(using=self.db):
            moved = self._requeue(finished.filter(unique_key=None))
        return moved + requeue_keyed(finished.filter(unique_key__isnull=False), self._requeue)

    def _requeue(self, jobs: JobQuerySet) -> int:
        Result.objects.using(self.db).filter(job__in=jobs).delete()
        return self._make_ready(jobs, **_AFRESH)

    def _make_ready(self, jobs: JobQuerySet, **changes: Any) -> int:
        queues = set(jobs.order_by().values_list("queue_name", flat=True).distinct())
        moved = jobs.update(state=JobState.READY, **changes)
        for queue_name in queues:
            notifications.hint(notifications.READY, queue_name)
        return moved


def _first_state(options: Options) -> JobState:
    return JobState.SCHEDULED if options.is_for_later else JobState.READY


def _state_of_replaced(options: Options) -> Case:
    """Return where an unstarted job goes that gets the time of a new call; parents and full keys hold it up still."""
    if options.is_for_later:
        return Case(When(state=JobState.WAITING, then=F("state")), default=Value(JobState.SCHEDULED))
    return Case(When(state__in=[JobState.WAITING, JobState.BLOCKED], then=F("state")), default=Value(JobState.READY))


def _has_cancel_receivers() -> bool:
    return bool(signals.job_cancelled.receivers)


_AFRESH = {
    "worker_id": "",
    "finished_at": None,
    "cancel_requested_at": None,
    "progress": None,
    # It waits from now on.
    "run_after": Now(),
    "max_attempts": Greatest(F("max_attempts"), F("attempt") + 1),
}
