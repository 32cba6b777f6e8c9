"""What waits in each queue, and who takes it: for people who look, not for workers.

Everything is counted up to MOST_COUNTED along the index of ready jobs, and for any number of queues in the
same few queries, so that a look costs the same however much waits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, DateTimeField, Field, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now

from ..conf import LARGEST_PRIORITY, SMALLEST_PRIORITY
from ..states import WorkerState
from .claim import PLACE
from .job import Job
from .queue import Queue, matches
from .queue_problems import matches_tags
from .worker import Worker, WorkerKind

MOST_COUNTED = 10_000

TAKES_JOBS = (WorkerState.STARTING, WorkerState.RUNNING)


@dataclass(frozen=True, slots=True)
class Backlog:
    """One queue at a moment.

    ``ready`` is never more than MOST_COUNTED + 1, which means "more"; ``oldest_wait`` is the longest among the jobs
    counted, None without any. ``workers`` are those with a live lease that serve the queue, by their patterns and tags;
    with a ``problem`` in its settings, none does. ``priorities`` are the largest and the smallest of the ready jobs.
    """

    ready: int
    oldest_wait: timedelta | None
    running: int
    workers: tuple[Worker, ...]
    is_paused: bool
    problem: str = ""
    priorities: tuple[int, ...] = ()

    @property
    def takers(self) -> list[Worker]:
        """The workers that take jobs now."""
        return [worker for worker in self.workers if worker.state in TAKES_JOBS]

    @property
    def is_stuck(self) -> bool:
        """Say whether jobs are ready, those of the largest or the smallest priority, that no live worker would take."""
        return not all(any(_takes(worker, priority) for worker in self.takers) for priority in self.priorities)


def backlogs(queues: Collection[Queue]) -> dict[str, Backlog]:
    """Return the backlog of each of these queues by name, in three queries."""
    workers = Worker.objects.leased().filter(kind=WorkerKind.WORKER).order_by("worker_id")
    live = list(workers.only("worker_id", "state", "queues", "tags", "min_priority", "max_priority"))
    rows = {queue.name: (queue, queue.problem) for queue in queues}
    running = dict(Job.objects.running().order_by().values_list("queue_name").annotate(Count("pk")))
    return {
        name: Backlog(
            ready=ready,
            oldest_wait=None if since is None else max(now - since, timedelta()),
            running=running.get(name, 0),
            workers=() if rows[name][1] else tuple(worker for worker in live if _serves(worker, rows[name][0])),
            is_paused=paused_at is not None and (resume_at is None or resume_at > now),
            problem=rows[name][1],
            priorities=(largest, smallest) if ready else (),
        )
        for name, paused_at, resume_at, ready, since, largest, smallest, now in _counted(queues)
    }


def undeclared_ready_queues() -> list[str]:
    """Return names of queues that have ready jobs and no Queue row, sorted; in two queries.

    Not every one when several follow each other in the order of names, but always some if there are any.
    """
    ready = Job.objects.ready().order_by("queue_name").values("queue_name")
    follower = Subquery(ready.filter(queue_name__gt=OuterRef("name"))[:1])
    # One index lookup after each known name, and one for the first of all.
    followers = dict(Queue.objects.annotate(follower=follower).values_list("name", "follower"))
    first = ready.values_list("queue_name", flat=True).first()
    return sorted({first, *followers.values()} - {None} - set(followers))


def _counted(queues: Collection[Queue]) -> QuerySet:
    in_order = Job.objects.ready().filter(queue_name=OuterRef("name")).order_by("-priority", PLACE)
    since = in_order.annotate(since=Coalesce("run_after", "enqueued_at")).values("since")
    every = Job.objects.ready().filter(queue_name=OuterRef("name")).values("priority")
    rows = Queue.objects.filter(pk__in=[queue.pk for queue in queues]).annotate(
        ready=of_first("COUNT(*)", since, IntegerField()),
        ready_since=of_first("MIN(since)", since, DateTimeField()),
        # Both ends of the index.
        largest=Subquery(every.order_by("-priority", PLACE)[:1]),
        smallest=Subquery(every.order_by("priority", PLACE.desc())[:1]),
    )
    return rows.values_list("name", "paused_at", "resume_at", "ready", "ready_since", "largest", "smallest", Now())


def of_first(aggregate: str, rows: QuerySet, output_field: Field) -> Subquery:
    """Return an aggregate over the first rows of a queryset, which the ORM cannot write inside a query."""
    template = "(SELECT %(aggregate)s FROM (%(subquery)s) counted)"
    return Subquery(rows[: MOST_COUNTED + 1], output_field, template=template, aggregate=aggregate)


def _serves(worker: Worker, queue: Queue) -> bool:
    return matches(queue.name, _texts(worker.queues)) and matches_tags(queue.tags, _texts(worker.tags))


def _takes(worker: Worker, priority: int) -> bool:
    # A row written past us may have any priority: a worker without a bound takes it.
    within = min(max(priority, SMALLEST_PRIORITY), LARGEST_PRIORITY)
    return worker.min_priority <= within <= worker.max_priority


def _texts(value: object) -> list[str]:
    """Return the texts of a list that a worker of any release may have written."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
