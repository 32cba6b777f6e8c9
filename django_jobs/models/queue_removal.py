"""How a queue is removed, and what becomes of its jobs: kept, cancelled or deleted.

A queue is a row, and jobs know it by its name: what settings or a task declare comes back with the next start of a
worker, and a name that has ready jobs within seconds, with the default settings.

Jobs are moved in pieces, a transaction each, so that no claim or completion waits long; the row goes last.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from .. import notifications
from ..exceptions import InvalidOption
from ..states import UNSTARTED, JobState
from .database import exclusive
from .job import Job
from .job_scopes import PRUNE_BATCH

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet
    from .queue_queryset import QueueQuerySet

KEEP, CANCEL, DELETE = CHOICES = ("keep", "cancel", "delete")


class Removed(NamedTuple):
    """What a removal did: jobs cancelled before they had begun, running jobs asked to stop, jobs deleted.

    ``is_removed`` is False if there was no such queue, or if more jobs are left than were to be moved at once.
    """

    is_removed: bool
    cancelled: int = 0
    stopping: int = 0
    deleted: int = 0

    @property
    def has_more(self) -> bool:
        """Say whether the queue is still there because jobs are left."""
        return not self.is_removed and bool(self.cancelled or self.stopping or self.deleted)


def remove_queue(queues: QueueQuerySet, name: str, jobs: str, at_most: int | None = None) -> Removed:
    """Remove the queue ``name``; nothing happens if there is none.

    ``keep`` leaves its jobs as they are. ``cancel`` cancels the unfinished ones; running ones are asked to stop.
    ``delete`` does so too, and deletes all that have ended, which are those that had not begun and those that were
    finished before: a running one stays until it is pruned. With ``at_most`` no more jobs are moved than about so
    many; the queue stays if some are left. Raise InvalidOption for another word.
    """
    if jobs not in CHOICES:
        raise InvalidOption(f"The jobs of a queue that is deleted are {' or '.join(map(repr, CHOICES))}, not {jobs!r}.")
    if not queues.filter(name=name).exists():
        return Removed(is_removed=False)
    cancelled = stopping = deleted = 0
    has_room = True
    if jobs != KEEP:
        cancelled, stopping, has_room = _cancel_all(name, at_most)
    if jobs == DELETE and has_room:
        deleted, has_room = _delete_finished(name, at_most)
    is_removed = has_room and bool(queues.filter(name=name).delete()[0])
    if is_removed:
        notifications.hint(notifications.QUEUES)
    return Removed(is_removed, cancelled, stopping, deleted)


def _cancel_all(name: str, at_most: int | None) -> tuple[int, int, bool]:
    """Cancel what has not ended; return how many were cancelled, how many asked to stop, and whether none is left."""
    cancelled = stopping = 0
    done = -1
    # Once more after each pass that found some: meanwhile a job may have gone back to a state that was passed.
    while done < cancelled + stopping:
        done = cancelled + stopping
        # Each of these has an index of its own. Running jobs last: the others may begin meanwhile.
        for state in (*UNSTARTED, JobState.RUNNING):
            unasked = Job.objects.filter(queue_name=name, state=state, cancel_requested_at=None)
            while ids := list(unasked.values_list("pk", flat=True)[:PRUNE_BATCH]):
                moved, asked = _cancel(Job.objects.filter(pk__in=ids))
                cancelled, stopping = cancelled + moved - asked, stopping + asked
                if at_most is not None and cancelled + stopping >= at_most:
                    return cancelled, stopping, False
    return cancelled, stopping, True


def _cancel(jobs: JobQuerySet) -> tuple[int, int]:
    """Return how many of these were moved, and how many of those are running and were asked to stop."""
    with exclusive():
        return jobs.cancel(), jobs.running().count()


def _delete_finished(name: str, at_most: int | None) -> tuple[int, bool]:
    """Delete the finished jobs; return how many, and whether none is left."""
    deleted, finished = 0, Job.objects.finished().filter(queue_name=name)
    ends = finished.order_by("finished_at").values_list("finished_at", flat=True)
    while (first := ends.first()) is not None:
        # From there on: the jobs of other queues that ended before are not looked at once more each time. With a margin,
        # as SQLite compares times as texts, and they may have more or less digits.
        since = first - timedelta(seconds=1)
        finished, ends = finished.filter(finished_at__gte=since), ends.filter(finished_at__gte=since)
        pruned = finished.prune()
        deleted += pruned
        if at_most is not None and deleted >= at_most:
            return deleted, False
        if not pruned:
            # Somebody else has the rest locked, to delete or to requeue it.
            break
    return deleted, True
