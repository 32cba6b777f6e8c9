"""Which jobs: the scopes of ``JobQuerySet``, and what is done with them but for changing their state."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from django.db import connections, models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from .. import signals
from ..states import FINISHED, KEYED, SLOTTED, UNFINISHED, UNSTARTED, JobState
from .database import FOREVER, Constant, exclusive, from_now, has_come, lock_free_rows, time_until
from .worker import Worker

if TYPE_CHECKING:
    from .job import Job  # noqa: F401


# 500 keeps each DELETE well under a second, so that claims and autovacuum never wait long behind it.
PRUNE_BATCH = 500


class JobScopes(models.QuerySet["Job"]):
    def ready(self) -> Self:
        return self.filter(state=JobState.READY)

    def running(self) -> Self:
        return self.filter(state=JobState.RUNNING)

    def unfinished(self) -> Self:
        return self.filter(state__in=UNFINISHED)

    def finished(self) -> Self:
        return self.filter(state__in=[Constant(state.value) for state in FINISHED])

    def prunable(self) -> Self:
        """Return the finished jobs but those that keep their unique key for a time yet."""
        return self.finished().filter(Q(unique_until=None) | Q(unique_until__lte=Now()))

    def due(self) -> Self:
        """Return the scheduled jobs whose time has come, by the database's clock."""
        return self.filter(state=JobState.SCHEDULED, run_after__lte=has_come(self.db))

    def held_by(self, worker_id: str) -> Self:
        """Return the running jobs of one worker."""
        return self.running().filter(worker_id=worker_id)

    def orphans(self) -> Self:
        """Return the running jobs whose worker is not live."""
        return self.running().exclude(
            Exists(Worker.objects.using(self.db).live().filter(worker_id=OuterRef("worker_id")))
        )

    def ready_queues(self) -> Iterator[str]:
        """Yield the names of the queues with ready jobs, one short index lookup each."""
        last: str | None = ""
        while (last := self._first_ready_queue(after=last)) is not None:
            yield last

    def _first_ready_queue(self, after: str | None) -> str | None:
        names = self.ready().filter(queue_name__gt=after).order_by("queue_name").values_list("queue_name", flat=True)
        return names.first()

    def with_key(self) -> Self:
        """Return the jobs with a concurrency key that wait for a slot of it, or have one."""
        return self._keyed_in(KEYED)

    def slotted(self) -> Self:
        """Return the jobs that have a slot of their concurrency key."""
        return self._keyed_in(SLOTTED)

    def keyed(self, state: JobState) -> Self:
        """Return the jobs with a concurrency key in one of the states that such jobs wait or have a slot in."""
        return self._keyed_in([state])

    def _keyed_in(self, states: Sequence[JobState]) -> Self:
        # "Greater than" would say the same, and SQLite would look for that in the index and not for a key.
        jobs = self.exclude(concurrency_key=Constant(""))
        if not connections[self.db].features.has_select_for_update:
            # In the words of the index, or SQLite does not use it. PostgreSQL would expect too few rows of it.
            jobs = jobs.filter(state__in=[Constant(state.value) for state in KEYED])
        if len(states) == 1:
            return jobs.filter(state=Constant(states[0].value))
        return jobs.filter(state__in=[Constant(state.value) for state in states])

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

    # For those who look

    def unstarted_ids(self) -> list[int]:
        return list(self.filter(state__in=UNSTARTED).values_list("pk", flat=True))

    def next_due_in(self) -> timedelta | None:
        """Return how long until the next scheduled job is due, by the database's clock; None without one."""
        scheduled = self.filter(state=JobState.SCHEDULED, run_after__lt=from_now(FOREVER)).order_by("run_after")
        first: timedelta | None = scheduled.values_list(time_until("run_after"), flat=True).first()
        return first

    def announce_cancelled(self, ids: Collection[int]) -> None:
        """Tell the receivers which of these jobs were cancelled before they had started."""
        if not ids:
            return
        nothing = dict.fromkeys(("task_path", "queue_name", "attempt", "worker_id", "duration", "exception"))
        for pk in self.filter(pk__in=ids, state=JobState.CANCELLED).values_list("pk", flat=True):
            signals.send(signals.job_cancelled, self.model, job_id=pk, **nothing)
