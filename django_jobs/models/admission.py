"""Slots: which jobs of a concurrency key may be ready or running, and whose turn is next.

At most ``limit`` jobs of a key are READY or RUNNING: they have its *slots*. The others are BLOCKED, outside of the index of
ready jobs. Slots are counted from the rows, so a crash or a deletion frees what a job held, and nothing drifts. The rules:

- More jobs get slots only here, with the key's ``Limit`` row locked and the slots counted after it was: never too many.
- Whoever frees slots, or blocks a job, calls ``offer()``, which looks again when the transaction has committed; workers look
  after each of theirs. Of two that do not see each other's rows the later one looks when both have committed: no slot
  stays free beside a blocked job.
- Nobody waits for a Limit row: a web request may hold it for as long as its transaction takes. Who does not get it
  leaves the key to a worker, which tries until it has been done.
- A process may die between its commit and its look: the leader looks at all keys from time to time (``Round``).

First in line is the job with the largest priority, and among those the first in. It joins the ready jobs of its priority at
their end, so that the jobs of one key do not overtake those of others that have become ready meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction
from django.db.models import Case, Count, Exists, F, IntegerField, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Coalesce, Now

from .. import notifications
from ..states import KEYED, JobState
from .compiled import Hole, can_compile, compile_select, execute
from .database import exclusive, from_now, lock_free_rows, take_ids, try_lock_names
from .limit import Limit
from .queue import Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

# How many keys one transaction takes, so that it is short, and how many the leader looks at each time.
KEYS_AT_ONCE, KEYS_A_ROUND = 100, 500
UNUSED_AFTER = timedelta(hours=1)

_KEYS, _LIMIT = Hole("ANY (%(keys)s)"), Hole("%(limit)s")
# The compiled look for keys to be done, by database.
_looks: dict[str, str] = {}


class Given(NamedTuple):
    """How many jobs were admitted or blocked, and the keys that are still to be done: somebody else has their row."""

    moved: int = 0
    left: frozenset[str] = frozenset()


NOTHING = Given()


def offer(
    jobs: JobQuerySet,
    limits: Mapping[str, int | None],
    *,
    own: Collection[int] | None = None,
    is_declared: bool = False,
) -> None:
    """Give the free slots of these keys away, now, and once more when the transaction has committed.

    Call it inside a transaction. ``jobs`` are all jobs of the database. ``limits`` are what the tasks of the jobs
    have said; with ``is_declared`` that is news, else it counts only for keys without a row. With ``own``, of jobs that this
    transaction has inserted, only those are admitted now: others would have to wait for its end.
    """
    limits = {key: limit for key, limit in limits.items() if key}
    if not limits:
        return
    changed = _declare(jobs.db, limits, is_declared)
    given = give_out(jobs, limits, own=own, changed=changed)
    if own is None or given.left or given.moved < len(own):
        # A method has a name, which Django's report of a failure asks for.
        again = _Offer(jobs, limits, is_declared).again
        transaction.on_commit(again, using=jobs.db, robust=True)


@dataclass(frozen=True, slots=True)
class _Offer:
    jobs: JobQuerySet
    limits: Mapping[str, int | None]
    is_declared: bool

    def again(self) -> None:
        """Look at the keys as they are now that the transaction has committed."""
        with exclusive():
            changed = _declare(self.jobs.db, self.limits, self.is_declared)
        for key in give_out(self.jobs, self.limits, changed=changed).left:
            notifications.hint(notifications.SLOTS, key)


def give_out(
    jobs: JobQuerySet, keys: Iterable[str], *, own: Collection[int] | None = None, changed: Collection[str] = ()
) -> Given:
    """Admit the jobs that are first in line for the free slots of these keys.

    Of keys whose limit has ``changed`` block the last ready jobs where there are more than slots.
    """
    to_do = sorted({*_with_room(jobs, keys), *changed})
    if not to_do:
        return NOTHING
    with exclusive():
        rows = lock_free_rows(Limit.objects.using(jobs.db).filter(key__in=to_do[:KEYS_AT_ONCE]).order_by("key"))
        limits = dict(rows.values_list("key", _effective()))
        # Another statement than that which took the locks: it sees what their last holders have done.
        slots = _slots(jobs, limits)
        moved = sum(_settle(jobs, key, most - slots.get(key, 0), own) for key, most in limits.items())
        if moved:
            # Written, so that a transaction with an older view of the rows cannot lock it and count anew.
            Limit.objects.using(jobs.db).filter(key__in=limits).update(used_at=Now())
    return Given(moved, frozenset(to_do) - limits.keys())


def _settle(jobs: JobQuerySet, key: str, free: int, own: Collection[int] | None) -> int:
    if free > 0:
        return _admit(jobs, key, free, own)
    if free < 0:
        last = lock_free_rows(jobs.keyed(JobState.READY).filter(concurrency_key=key).order_by("priority", "-pk"))
        return jobs.block(list(last.values_list("pk", flat=True)[:-free]))
    return 0


def _admit(jobs: JobQuerySet, key: str, free: int, own: Collection[int] | None) -> int:
    first: list[tuple[int, str]] = list(lock_free_rows(_line(jobs, key)).values_list("pk", "queue_name")[:free])
    if own is not None:
        first = first[: next((place for place, (pk, _) in enumerate(first) if pk not in own), len(first))]
    if not first:
        return 0
    # A place at the end, as a job has that is enqueued now; new jobs have theirs already.
    places = take_ids(jobs.db, jobs.model, len(first)) if own is None else []
    moved = jobs.admit([pk for pk, _ in first], places)
    for queue_name in {queue_name for _, queue_name in first}:
        notifications.hint(notifications.READY, queue_name)
    return moved


def _line(jobs: JobQuerySet, key: str) -> JobQuerySet:
    """Return the jobs that wait for a slot of this key, in their order, without those whose queue is paused."""
    waiting = jobs.keyed(JobState.BLOCKED).filter(concurrency_key=key).order_by("-priority", "pk")
    return waiting.exclude(Exists(Queue.objects.using(jobs.db).paused().filter(name=OuterRef("queue_name"))))


def give_back_paused(jobs: JobQuerySet) -> int:
    """Take the slots from ready jobs of paused queues, and offer them to others; return how many there were."""
    paused = list(Queue.objects.using(jobs.db).paused().values_list("name", flat=True))
    if not paused:
        return 0
    with exclusive():
        ready = lock_free_rows(jobs.keyed(JobState.READY).filter(queue_name__in=paused))
        rows = list(ready.values_list("pk", "concurrency_key", "concurrency_limit")[: 10 * KEYS_AT_ONCE])
        moved = jobs.block([pk for pk, _, _ in rows])
        offer(jobs, {key: limit for _, key, limit in rows})
    return moved


class Round:
    """The leader's look at all keys, some with each call: for what a process that died has left undone."""

    def __init__(self) -> None:
        self._after = ""

    def look(self, jobs: JobQuerySet) -> int:
        """Do what is to be done for the next keys; return how many jobs have moved."""
        limits = Limit.objects.using(jobs.db).annotate(most=_effective(), taken=_taken(jobs)).order_by("key")
        page = list(limits.filter(key__gt=self._after).values_list("key", "most", "taken")[:KEYS_A_ROUND])
        over = [key for key, most, taken in page if taken > most]
        room = [key for key, most, taken in page if taken < most]
        moved = give_back_paused(jobs) + give_out(jobs, room, changed=over).moved
        is_last = len(page) < KEYS_A_ROUND
        self._after = "" if is_last else page[-1][0]
        return moved + (_adopt(jobs) if is_last else 0)


def _adopt(jobs: JobQuerySet) -> int:
    """Make the rows of keys that have none: their maker's transaction was rolled back after somebody relied on it."""
    has_row = Exists(Limit.objects.using(jobs.db).filter(key=OuterRef("concurrency_key")))
    rows = jobs.keyed(JobState.BLOCKED).exclude(has_row).values_list("concurrency_key", "concurrency_limit")
    limits = dict(rows[:KEYS_AT_ONCE])
    if not limits:
        return 0
    with exclusive():
        _declare(jobs.db, limits, is_declared=False)
    return give_out(jobs, limits).moved


def forget_unused(jobs: JobQuerySet) -> int:
    """Delete the rows of keys that nobody has used for an hour; the next job makes its row anew."""
    unused = Limit.objects.using(jobs.db).filter(override=None, used_at__lt=from_now(-UNUSED_AFTER))
    for state in KEYED:
        unused = unused.exclude(Exists(jobs.keyed(state).filter(concurrency_key=OuterRef("key"))))
    with exclusive():
        keys = list(lock_free_rows(unused.order_by("key")).values_list("key", flat=True)[:KEYS_A_ROUND])
        return Limit.objects.using(jobs.db).filter(key__in=keys).delete()[0]


def _declare(using: str, limits: Mapping[str, int | None], is_declared: bool) -> list[str]:
    """Make the rows of new keys, and, with ``is_declared``, write limits that have changed; return the keys of those.

    Call it in a transaction.
    """
    rows = Limit.objects.using(using)
    known = dict(rows.filter(key__in=limits).values_list("key", "limit"))
    # To insert a key that another transaction has inserted would wait for its end.
    free = try_lock_names(using, [key for key in limits if key not in known])
    if free:
        rows.bulk_create([Limit(key=key, limit=limits[key] or 1) for key in sorted(free)], ignore_conflicts=True)
    changed = [key for key, limit in known.items() if is_declared and limits[key] not in (None, limit)]
    if not changed:
        return []
    changed = list(lock_free_rows(rows.filter(key__in=changed).order_by("key")).values_list("key", flat=True))
    for key in changed:
        rows.filter(key=key).update(limit=limits[key])
    return changed


def _with_room(jobs: JobQuerySet, keys: Iterable[str]) -> list[str]:
    """Return those of the keys that have a blocked job and a free slot."""
    connection = connections[jobs.db]
    if not can_compile(connection):
        return list(_waited_for(jobs).filter(key__in=list(keys)).values_list("key", flat=True))
    look = _looks.get(jobs.db)
    if look is None:
        waited_for = _waited_for(jobs).filter(key=_KEYS).values_list("key", flat=True)
        look = _looks[jobs.db] = compile_select(waited_for, jobs.db, _LIMIT)
    return [key for (key,) in execute(connection, look, {"keys": list(keys), "limit": None})]


def _waited_for(jobs: JobQuerySet) -> QuerySet[Any, Any]:
    blocked = Exists(jobs.keyed(JobState.BLOCKED).filter(concurrency_key=OuterRef("key")))
    # A case, so that slots are counted only where somebody waits for one: that is asked after each job with a key.
    taken = Case(When(blocked, then=_taken(jobs)), output_field=IntegerField())
    limits = Limit.objects.using(jobs.db).annotate(most=_effective(), taken=taken)
    return limits.filter(taken__lt=F("most")).order_by("key")


def _effective() -> Coalesce:
    return Coalesce("override", "limit")


def _taken(jobs: JobQuerySet) -> Coalesce:
    """Return how many slots of a key are taken, as an expression on its row."""
    taken = jobs.slotted().filter(concurrency_key=OuterRef("key")).order_by().values("concurrency_key")
    return Coalesce(Subquery(taken.annotate(count=Count("pk")).values("count")), 0)


def _slots(jobs: JobQuerySet, keys: Collection[str]) -> dict[str, int]:
    """Return how many slots of these keys are taken."""
    taken = jobs.slotted().filter(concurrency_key__in=list(keys)).order_by().values_list("concurrency_key")
    return dict(taken.annotate(Count("pk")))
