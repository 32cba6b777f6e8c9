"""Which jobs: the scopes of ``JobQuerySet``, by state, time and worker. They read; the verbs are in ``job_queryset``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from ..states import FINISHED, UNFINISHED, JobState
from .database import FOREVER, Constant, from_now, has_come, time_until
from .worker import Worker

if TYPE_CHECKING:
    from .job import Job  # noqa: F401


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

    def next_due_in(self) -> timedelta | None:
        """Return how long until the next scheduled job is due, by the database's clock; None without one."""
        scheduled = self.filter(state=JobState.SCHEDULED, run_after__lt=from_now(FOREVER)).order_by("run_after")
        first: timedelta | None = scheduled.values_list(time_until("run_after"), flat=True).first()
        return first

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
