"""The verbs: every way in which a job changes its state. The only writer of ``Job.state``.

Each verb is a guarded UPDATE that says how many rows it moved. A worker's verbs are fenced by id, worker_id
and attempt, and every way out of RUNNING that is not the worker's own clears ``worker_id``: a late writer matches
nothing. ``states.TRANSITIONS`` is the same as a table; ``completion`` turns outcomes into calls of these verbs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import BigIntegerField, Case, DurationField, Exists, F, Q, Value, When
from django.db.models.functions import Coalesce, Greatest, Now

from .. import notifications, signals
from ..exceptions import LeaseLost
from ..outcomes import ClaimedJob, Fate
from ..states import UNSTARTED, JobState
from . import insert
from .admission import offer
from .arrivals import settle_new
from .claim import ANY, Candidates, Kind, with_history
from .compiled import can_compile
from .database import exclusive, from_now, lock_free_rows
from .insert import Added, NewJob, Options, can_insert_values
from .job_scopes import JobScopes
from .marks import Marks
from .result import Result
from .rooms import Rooms, limits_of, share_out
from .turn import Success, turn_of
from .unique import arguments, replacement, requeue_keyed
from .worker import Worker

if TYPE_CHECKING:
    from .job import Job

# For how long a lease must go on after a claim: nobody takes the jobs before the claim has committed.
LEASE_MARGIN = timedelta(milliseconds=200)

# Rows, and what is to be changed in them.
Update = tuple["JobQuerySet", dict[str, Any]]


class JobQuerySet(JobScopes):
    # Enqueue

    def add(self, jobs: Sequence[NewJob]) -> Added:
        """Insert new jobs, in the state that their options say; then hint to the workers.

        One that needs a slot of its concurrency key begins as blocked, and gets it in the same transaction if one is free.
        A single job whose unique key is taken is left out; of several none has one. ``unique.add_unique`` takes them all.
        """
        connection = connections[self.db]
        states = {_first_state(options) for options in {id(job.options): job.options for job in jobs}.values()}
        if len(jobs) == 1 and JobState.BLOCKED not in states and can_insert_values(connection):
            return insert.insert_with_hint(connection, jobs[0], states.pop(), *jobs[0].options.hint)
        with exclusive() if JobState.BLOCKED in states else nullcontext():
            added = insert.insert(connection, jobs, _first_state, self._instance)
            if added.ids:
                new = [(pk, job.options) for pk, job in zip(added.ids, jobs, strict=True)]
                settle_new(self._all(), new, _first_state)
        return added

    def add_if_free(self, jobs: Sequence[NewJob], ids: Sequence[int]) -> Added:
        """Insert new jobs with these ids, but for those whose unique key is taken; return what was inserted."""
        added = insert.insert_free_rows(connections[self.db], jobs, ids, _first_state)
        inserted = set(added.ids)
        new = [(pk, job.options) for job, pk in zip(jobs, ids, strict=True) if pk in inserted]
        settle_new(self._all(), new, _first_state)
        return added

    def _instance(self, job: NewJob) -> Job:
        row: Job = insert.as_row(self.model, job)
        row.state = _first_state(job.options)
        return row

    def as_added(self, job: NewJob, pk: int, enqueued_at: datetime) -> Job:
        """Return the row of a job that has just been inserted, without a query."""
        row = self._instance(job)
        insert.complete(row, job, pk, enqueued_at, self.db)
        return row

    def replace(self, options: Options, calls: Mapping[int, NewJob]) -> int:
        """Give these jobs, of which none may have started, the options and arguments of new calls, by id."""
        jobs = self.filter(pk__in=calls, state__in=UNSTARTED)
        before = list(jobs.order_by().values_list("queue_name", "concurrency_key", "concurrency_limit").distinct())
        moved = jobs.update(state=_state_of_replaced(options), **replacement(options), **arguments(self, calls))
        if _first_state(options) != JobState.BLOCKED:
            for hint in {options._replace(queue_name=queue_name).hint for queue_name, _, _ in before}:
                notifications.hint(*hint)
        keys = {key: limit for _, key, limit in before} | {options.concurrency_key: options.concurrency_limit}
        offer(self._all(), keys)
        return moved

    # Verbs of a worker

    def claim(
        self,
        worker_id: str,
        queue_names: Sequence[str],
        limit: int,
        kind: Kind = ANY,
        rooms: Rooms | None = None,
    ) -> list[ClaimedJob]:
        """Take up to ``limit`` ready jobs of these queues for a worker whose lease is live, and what ``rooms`` allow.

        Jobs of a larger priority first; among those of one priority the queues take turns, in the order of their names here.

        Call it inside ``exclusive()``. Raise LeaseLost, having taken nothing, if the lease has ended.
        """
        if can_compile(connections[self.db]):
            return self.take_turn(worker_id, (), queue_names, limit, kind, rooms=rooms)[1]
        rooms = rooms or Rooms()
        most = rooms.most_of(queue_names, limit)
        rows = share_out(Candidates(kind.of(self.ready())), most, limit, rooms, limits_of(self._all()))
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
        rooms: Rooms | None = None,
    ) -> tuple[int, list[ClaimedJob]]:
        """Do ``succeed`` for each ``(id, attempt)`` and ``claim`` as one statement, where ``can_compile()`` says so.

        Return how many the fence let through, and the claimed jobs. For ``marks`` see there.
        """
        done, rows = turn_of(self, kind).take(worker_id, succeeded, queue_names, limit, marks, rooms)
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
        # Its next wait is another one: ageing counts anew.
        waiting = {"state": JobState.SCHEDULED, "worker_id": "", "run_after": from_now(delay), "raised": 0}
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
            due = lock_free_rows(self.due().order_by("run_after", "id"))
            rows = list(due.values_list("pk", "queue_name", "concurrency_key", "concurrency_limit")[:limit])
            moved = self.due().filter(pk__in=[row[0] for row in rows]).update(state=_READY_OR_BLOCKED)
            for queue_name in {row[1] for row in rows}:
                notifications.hint(notifications.READY, queue_name)
            offer(self._all(), {key: most for _, _, key, most in rows})
        return moved

    def admit(self, ids: Sequence[int], positions: Sequence[int] = ()) -> int:
        """Make these blocked jobs ready, each at its position if such are given."""
        changes: dict[str, Any] = {"state": JobState.READY}
        if positions:
            cases = [When(pk=pk, then=Value(position)) for pk, position in zip(ids, positions, strict=True)]
            changes["position"] = Case(*cases, output_field=BigIntegerField())
        return self.filter(pk__in=ids, state=JobState.BLOCKED).update(**changes)

    def block(self, ids: Collection[int]) -> int:
        """Take the slots of these ready jobs: they wait for another turn."""
        return self.filter(pk__in=ids, state=JobState.READY).update(state=JobState.BLOCKED)

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

    # Verbs of a person, and of code

    def stage(self) -> int:
        """Make the scheduled jobs of this queryset ready now."""
        return self._make_ready(self.filter(state=JobState.SCHEDULED), run_after=Now())

    def cancel(self) -> int:
        """Cancel the unfinished jobs of this queryset; return how many were cancelled or asked to stop.

        One that has not started is cancelled at once; a running one is asked to stop, by way of its worker.
        """
        unstarted = self.unstarted_ids() if signals.job_cancelled.receivers else []
        is_running = Q(state=JobState.RUNNING)
        with exclusive():
            keys = dict(self.with_key().order_by().values_list("concurrency_key", "concurrency_limit").distinct())
            # One statement: between two, a job could be given back, or claimed, past both.
            moved = self.unfinished().update(
                state=Case(When(is_running, then=F("state")), default=Value(JobState.CANCELLED)),
                finished_at=Case(When(~is_running, then=Now())),
                # Whoever cancels a job wants it gone: its key is free, or as soon as it has stopped.
                unique_until=Case(When(is_running, then=F("unique_until"))),
                cancel_requested_at=Case(When(is_running, then=Coalesce("cancel_requested_at", Now()))),
            )
            offer(self._all(), keys)
        if moved:
            notifications.hint(notifications.CANCEL)
        self._all().announce_cancelled(unstarted)
        return moved

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
        with exclusive():
            rows = jobs.order_by().values_list("queue_name", "concurrency_key", "concurrency_limit").distinct()
            found = list(rows)
            moved = jobs.update(state=_READY_OR_BLOCKED, **changes)
            for queue_name in {row[0] for row in found}:
                notifications.hint(notifications.READY, queue_name)
            offer(self._all(), {key: most for _, key, most in found})
        return moved

    def _all(self) -> JobQuerySet:
        """Return all jobs of this database."""
        every: JobQuerySet = self.model.objects.using(self.db)
        return every


def _first_state(options: Options) -> JobState:
    if options.is_for_later:
        return JobState.SCHEDULED
    return JobState.BLOCKED if options.concurrency_key else JobState.READY


def _state_of_replaced(options: Options) -> Case:
    """Return where an unstarted job goes that gets the time and the key of a new call; parents hold it up still."""
    if options.is_for_later:
        return Case(When(state=JobState.WAITING, then=F("state")), default=Value(JobState.SCHEDULED))
    stays = Q(state=JobState.WAITING) | Q(state=JobState.READY, concurrency_key=options.concurrency_key)
    return Case(When(stays, then=F("state")), default=Value(_first_state(options)))


# Where a job goes that may run now.
_READY_OR_BLOCKED = Case(When(concurrency_key="", then=Value(JobState.READY)), default=Value(JobState.BLOCKED))

_AFRESH = {
    "worker_id": "",
    "finished_at": None,
    "cancel_requested_at": None,
    "progress": None,
    # It waits from now on.
    "run_after": Now(),
    "raised": 0,
    "max_attempts": Greatest(F("max_attempts"), F("attempt") + 1),
}
