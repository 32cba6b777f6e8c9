"""A worker or supervisor process, and its lease.

A lease is live while the state is a live one and ``expires_at`` lies ahead, by the database's clock. Its
supervisor renews it. Once a worker is marked lost it never becomes live again under that row's
registration: marking it and taking its jobs is one transaction (``JobQuerySet.rescue``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..conf import LARGEST_PRIORITY, SMALLEST_PRIORITY
from ..exceptions import InvalidOption
from ..states import LIVE_WORKER, WorkerState
from .database import JobsManager, exclusive, from_now, lock_free_rows, lock_rows


class WorkerKind(models.TextChoices):
    WORKER = "worker", _("worker")
    SUPERVISOR = "supervisor", _("supervisor")


class WorkerQuerySet(models.QuerySet["Worker"]):
    def live(self) -> WorkerQuerySet:
        """Return the processes that have not been stopped or marked lost."""
        return self.filter(state__in=LIVE_WORKER)

    def leased(self, margin: timedelta = timedelta()) -> WorkerQuerySet:
        """Return the processes whose lease is live now, and for ``margin`` more."""
        return self.live().filter(expires_at__gt=from_now(margin) if margin else Now())

    def register(self, worker_id: str, lease: timedelta, **fields: Any) -> None:
        """Write the row of a process that starts, with a lease of this length.

        Jobs that an earlier process left under this worker_id are taken from it. Raise InvalidOption if another
        live process goes by it.
        """
        values = fields | {"started_at": Now(), "last_seen": Now(), "expires_at": from_now(lease)}
        values |= {"state": WorkerState.STARTING, "is_leader": False}
        with exclusive():
            # The row first: of two processes that start under one id at once, the second waits here for the first.
            ended = {"state": WorkerState.STOPPED, "started_at": Now(), "last_seen": Now(), "expires_at": Now()}
            self.bulk_create([self.model(worker_id=worker_id, **fields | ended)], ignore_conflicts=True)
            mine = self.filter(worker_id=worker_id)
            lock_rows(mine).get()
            other = mine.leased().exclude(hostname=fields["hostname"], pid=fields["pid"]).first()
            if other is not None:
                raise InvalidOption(
                    f"The worker id {worker_id!r} is in use by process {other.pid} on {other.hostname}. "
                    "Choose another --worker-id, or leave it out to get a unique one."
                )
            _take_jobs_of_former(worker_id)
            mine.update(**values)

    def extend(self, worker_ids: Collection[str], lease: timedelta) -> set[str]:
        """Extend the leases of these processes by the database's clock, in one UPDATE; return those that are gone."""
        theirs = self.live().filter(worker_id__in=worker_ids)
        extended = theirs.update(last_seen=Now(), expires_at=from_now(lease))
        if extended == len(worker_ids):
            return set()
        return set(worker_ids) - set(theirs.values_list("worker_id", flat=True))

    def report(self, worker_id: str, **counters: Any) -> bool:
        """Write a process's counters and state. False: it is marked lost or stopped, or the row is gone."""
        return bool(self.live().filter(worker_id=worker_id).update(**counters))

    def mark_stopped(self, worker_id: str) -> bool:
        """Say that a process has ended as it should, with no job left."""
        stopped = {"state": WorkerState.STOPPED, "is_leader": False, "active": 0}
        return bool(self.live().filter(worker_id=worker_id).update(**stopped, last_seen=Now(), expires_at=Now()))

    def mark_lost(self, dead: Iterable[str] = ()) -> list[str]:
        """Mark the processes whose lease has ended, and those known to be dead, as lost; return their ids.

        Call it inside the transaction that takes their jobs.
        """
        ended = self.live().filter(Q(expires_at__lte=Now()) | Q(worker_id__in=list(dead)))
        ids = list(lock_free_rows(ended.order_by("pk")).values_list("worker_id", flat=True))
        self.live().filter(worker_id__in=ids).update(state=WorkerState.LOST, is_leader=False)
        return ids

    def forget(self, older_than: timedelta) -> int:
        """Delete the rows of processes that were last seen longer ago than this and are not live."""
        return self.exclude(state__in=LIVE_WORKER).filter(last_seen__lt=from_now(-older_than)).delete()[0]


def _take_jobs_of_former(worker_id: str) -> None:
    """Take the jobs of an earlier process that had the id: it is dead, and its jobs would seem to be the new one's."""
    # Imported here: the queries of jobs need those of workers.
    from .job import Job
    from .rescue import rescue_lost

    if Job.objects.held_by(worker_id).exists():
        rescue_lost([worker_id], reason="Another process has started under its worker id.")


class Worker(models.Model):
    worker_id = models.CharField(_("worker id"), max_length=255, unique=True)
    kind = models.CharField(_("kind"), max_length=10, choices=WorkerKind.choices, default=WorkerKind.WORKER)
    hostname = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    supervisor = models.CharField(_("supervisor"), max_length=255, blank=True)
    versions = models.JSONField(_("versions"), default=dict)
    tags = models.JSONField(_("tags"), default=list)
    queues = models.JSONField(_("queues"), default=list)
    concurrency = models.PositiveIntegerField(_("concurrency"), default=0)
    min_priority = models.SmallIntegerField(_("min priority"), default=SMALLEST_PRIORITY, db_default=SMALLEST_PRIORITY)
    max_priority = models.SmallIntegerField(_("max priority"), default=LARGEST_PRIORITY, db_default=LARGEST_PRIORITY)
    state = models.CharField(_("state"), max_length=10, choices=WorkerState.choices, default=WorkerState.STARTING)
    started_at = models.DateTimeField(_("started at"))
    last_seen = models.DateTimeField(_("last seen"))
    expires_at = models.DateTimeField(_("lease ends"))
    processed = models.PositiveBigIntegerField(_("processed"), default=0)
    failed = models.PositiveBigIntegerField(_("failed"), default=0)
    active = models.PositiveIntegerField(_("active"), default=0)
    rss = models.PositiveBigIntegerField(_("memory (bytes)"), default=0)
    loops = models.JSONField(
        _("loops"), default=dict, help_text=_("Each loop's seconds since its last pass, and its last error.")
    )
    is_leader = models.BooleanField(_("is the leader"), default=False)

    objects = JobsManager.from_queryset(WorkerQuerySet)()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return self.worker_id
