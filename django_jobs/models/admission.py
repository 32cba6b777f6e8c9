"""Slots: which jobs of a concurrency key may be ready or running, and whose turn is next.

At most ``limit`` jobs of a key are READY or RUNNING: they have its *slots*. The others are BLOCKED, outside of the index of
ready jobs. Slots are counted from the rows, so a crash or a deletion frees what a job held, and nothing drifts. The rules:

- More jobs get slots only here, with the key's ``Limit`` row locked and the slots counted after it was: never too many.
- Whoever frees slots, or blocks a job, calls ``offer()``, which looks again when the transaction has committed; workers look
  after each of theirs. Of two that do not see each other's rows the later one looks when both have committed: no slot
  stays free beside a blocked job.
- Nobody waits for a Limit row: a web request may hold it for as long as its transaction takes. Who does not get it
  leaves the key to a worker, which tries until it has been done.
- A transaction that sees the rows as they were when it began (REPEATABLE READ) gives nothing out before its commit.
- A process may die between its commit and its look: the leader looks at all keys from time to time (``slot_round``).

First in line is the job with the largest priority, and among those the first in. It joins the ready jobs of its priority at
their end, so that the jobs of one key do not overtake those of others that have become ready meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction
from django.db.models import Case, Count, Exists, F, IntegerField, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Coalesce, Now
from django.db.models.lookups import IsNull

from .. import notifications
from ..states import JobState
from .compiled import Hole, can_compile, compile_select, execute
from .database import exclusive, lock_free_rows, sees_commits, take_ids, try_lock_names
from .limit import Limit
from .queue import Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

# How many keys one statement takes, and the leader looks at each time.
KEYS_AT_ONCE = 500
# How many rows of new keys an enqueue makes at most: the locks on their names, which others may need, are held as long as
# its transaction takes. Those of the other keys are made when it has committed.
MOST_NEW_KEYS = 50

_KEYS, _LIMIT = Hole("ANY (%(keys)s)"), Hole("%(limit)s")
_EACH = Hole("wanted.key")
# The first of the lines of several keys.
_LINES = """
SELECT line.* FROM unnest(%(keys)s::text[]) AS wanted (key), LATERAL ({line}) AS line
"""

# How many of a transaction's last callbacks are searched for the same look.
_SEARCHED = 20

# The compiled look for keys to be done, and that for the first in line, by database.
_looks: dict[str, str] = {}
_lines: dict[str, str] = {}


class Given(NamedTuple):
    """How many jobs were admitted or blocked, and the keys that are still to be done: somebody else has their row."""

    moved: int = 0
    left: frozenset[str] = frozenset()


NOTHING = Given()


class Arrival(NamedTuple):
    """A new job with a key: as it was inserted, blocked."""

    id: int
    key: str
    limit: int | None
    priority: int
    queue_name: str


def take_in(jobs: JobQuerySet, arrivals: Sequence[Arrival]) -> None:
    """Admit those of the new jobs for which there are free slots, and look at the others when they have been committed.

    Call it in the transaction that has inserted them. It admits no others: those would have to wait for its end.
    """
    limits = {arrival.key: arrival.limit for arrival in arrivals}
    if not sees_commits(jobs.db):
        _look_after_commit(jobs, limits, is_declared=True)
        return
    paused = set(Queue.objects.using(jobs.db).paused().values_list("name", flat=True))
    open_to: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        if arrival.queue_name not in paused:
            open_to.setdefault(arrival.key, []).append(arrival)
    first_id = min(arrival.id for arrival in arrivals)
    admitted, most_new = 0, MOST_NEW_KEYS
    for keys in _portions(limits):
        changed = declare(jobs.db, {key: limits[key] for key in keys}, is_declared=True, most_new=most_new)
        most_new = 0
        admitted += _admit_arrivals(jobs, {key: open_to[key] for key in keys if key in open_to}, first_id)
        take_back(jobs, changed)
    if admitted < len(arrivals):
        _look_after_commit(jobs, limits, is_declared=True)


def _admit_arrivals(jobs: JobQuerySet, arrivals: Mapping[str, Sequence[Arrival]], first_id: int) -> int:
    if not arrivals:
        return 0
    # Those that have come before them stand before them, and are admitted by others.
    earlier = jobs.keyed(JobState.BLOCKED).filter(concurrency_key=OuterRef("key"), pk__lt=first_id)
    # So do those that got a slot, and with it a place, since the new jobs have their ids: these then need places too.
    placed = jobs.keyed(JobState.READY).filter(concurrency_key=OuterRef("key"), position__gt=first_id)
    first = (
        every_limit(jobs).filter(key__in=list(arrivals), taken__lt=F("most")).exclude(is_any(earlier) | is_any(placed))
    )
    free = _lock(jobs, list(first.values_list("key", flat=True)))
    chosen: list[Arrival] = []
    for key, room in free.items():
        in_line = sorted(arrivals[key], key=lambda arrival: (-arrival.priority, arrival.id))
        chosen += in_line[: max(room, 0)]
    moved = jobs.admit([arrival.id for arrival in chosen]) if chosen else 0
    return _move(jobs, free, moved, {arrival.queue_name for arrival in chosen})


def offer(jobs: JobQuerySet, limits: Mapping[str, int | None]) -> None:
    """Give the free slots of these keys away, now, and once more when the transaction has committed.

    Call it in a transaction that frees slots or blocks jobs. ``jobs`` are all jobs of the database. ``limits`` are what
    the jobs said when they were enqueued: that counts for keys without a row.
    """
    limits = {key: limit for key, limit in limits.items() if key}
    if not limits:
        return
    for keys in _portions(limits) if sees_commits(jobs.db) else ():
        declare(jobs.db, {key: limits[key] for key in keys}, is_declared=False)
        give_out(jobs, keys)
    _look_after_commit(jobs, limits, is_declared=False)


def _look_after_commit(jobs: JobQuerySet, limits: Mapping[str, int | None], *, is_declared: bool) -> None:
    look = _Offer(jobs, limits, is_declared)
    # For a loop of enqueues one look, not one for each of them. What undoes the other one's call undoes this one too.
    for entry in reversed(connections[jobs.db].run_on_commit[-_SEARCHED:]):
        other = getattr(entry[1], "__self__", None)
        if isinstance(other, _Offer) and look.is_covered_by(other):
            return
        if isinstance(other, _Offer) and other.limits.keys() & limits.keys():
            # It may say another limit: the last word counts.
            break
    # A method has a name, which Django's report of a failure asks for.
    transaction.on_commit(look.again, using=jobs.db, robust=True)


@dataclass(frozen=True, slots=True)
class _Offer:
    jobs: JobQuerySet
    limits: Mapping[str, int | None]
    is_declared: bool

    def is_covered_by(self, other: _Offer) -> bool:
        """Say whether another look, at the end of the same transaction, does all that this one would."""
        return self.is_declared == other.is_declared and self.limits.items() <= other.limits.items()

    def again(self) -> None:
        """Look at the keys as they are now that the transaction has committed."""
        for keys in _portions(self.limits):
            with exclusive():
                changed = declare(self.jobs.db, {key: self.limits[key] for key in keys}, self.is_declared)
                take_back(self.jobs, changed)
            for key in give_out(self.jobs, keys).left:
                notifications.hint(notifications.SLOTS, key)


def give_out(jobs: JobQuerySet, keys: Iterable[str]) -> Given:
    """Admit the jobs that are first in line for the free slots of these keys."""
    given = NOTHING
    for to_do in _portions(_with_room(jobs, keys)):
        moved, left = _give_out(jobs, to_do)
        given = Given(given.moved + moved, given.left | left)
    return given


def _give_out(jobs: JobQuerySet, to_do: Collection[str]) -> Given:
    with exclusive():
        free = _lock(jobs, to_do)
        first = _first_in_line(jobs, {key: room for key, room in free.items() if room > 0})
        # A place at the end, as a job has that is enqueued now.
        places = take_ids(jobs.db, jobs.model, len(first)) if first else []
        moved = jobs.admit([pk for pk, _ in first], places) if first else 0
        _move(jobs, free, moved, {queue_name for _, queue_name in first})
    return Given(moved, frozenset(to_do) - free.keys())


def take_back(jobs: JobQuerySet, keys: Collection[str]) -> int:
    """Block the last ready jobs of keys that have more slots taken than there are. Call it in a transaction."""
    moved = 0
    for key, room in _lock(jobs, keys).items():
        if room < 0:
            last = lock_free_rows(jobs.keyed(JobState.READY).filter(concurrency_key=key).order_by("priority", "-pk"))
            moved += jobs.block(list(last.values_list("pk", flat=True)[:-room]))
    return moved


def _lock(jobs: JobQuerySet, keys: Collection[str]) -> dict[str, int]:
    """Lock the rows of these keys that nobody else has, and return how many slots of each are free."""
    if not keys:
        return {}
    rows = lock_free_rows(Limit.objects.using(jobs.db).filter(key__in=keys).order_by("key"))
    limits = dict(rows.values_list("key", _effective()))
    # Another statement than that which took the locks: it sees what their last holders have done.
    taken = jobs.slotted().filter(concurrency_key__in=list(limits)).order_by().values_list("concurrency_key")
    slots = dict(taken.annotate(Count("pk")))
    return {key: most - slots.get(key, 0) for key, most in limits.items()}


def _move(jobs: JobQuerySet, keys: Iterable[str], moved: int, queue_names: Iterable[str]) -> int:
    """Tell the workers of newly ready jobs, and write the rows of the keys; return how many jobs have moved."""
    if moved:
        # Written, so that a transaction with an older view of the rows cannot lock it and count anew.
        Limit.objects.using(jobs.db).filter(key__in=list(keys)).update(used_at=Now())
        for queue_name in queue_names:
            notifications.hint(notifications.READY, queue_name)
    return moved


def _first_in_line(jobs: JobQuerySet, free: Mapping[str, int]) -> list[tuple[int, str]]:
    """Return id and queue of the jobs that are first in line for so many free slots of each key, locked."""
    if not can_compile(connections[jobs.db]):
        found = [_line(jobs, key).values_list("pk", "queue_name")[:room] for key, room in free.items()]
        return [row for rows in found for row in rows]
    lines = _lines.get(jobs.db)
    if lines is None:
        line = compile_select(lock_free_rows(_line(jobs, _EACH)).values_list("pk", "queue_name"), jobs.db, _LIMIT)
        lines = _lines[jobs.db] = _LINES.format(line=line)
    first: list[tuple[int, str]] = []
    for room in sorted(set(free.values())):
        keys = [key for key, each in free.items() if each == room]
        first += [(pk, name) for pk, name in execute(connections[jobs.db], lines, {"keys": keys, "limit": room})]
    return first


def _line(jobs: JobQuerySet, key: Any) -> JobQuerySet:
    """Return the jobs that wait for a slot of this key, in their order, without those whose queue is paused."""
    waiting = jobs.keyed(JobState.BLOCKED).filter(concurrency_key=key).order_by("-priority", "pk")
    return waiting.exclude(Exists(Queue.objects.using(jobs.db).paused().filter(name=OuterRef("queue_name"))))


def declare(using: str, limits: Mapping[str, int | None], is_declared: bool, most_new: int | None = None) -> list[str]:
    """Make the rows of up to ``most_new`` new keys, and, with ``is_declared``, write limits that have changed.

    Return the keys of the changed ones. Call it in a transaction.
    """
    rows = Limit.objects.using(using)
    known = dict(rows.filter(key__in=limits).values_list("key", "limit"))
    # To insert a key that another transaction has inserted would wait for its end.
    free = try_lock_names(using, [key for key in limits if key not in known][:most_new])
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
    blocked = is_any(jobs.keyed(JobState.BLOCKED).filter(concurrency_key=OuterRef("key")))
    # A case, so that slots are counted only where somebody waits for one: that is asked after each job with a key.
    taken = Case(When(blocked, then=_taken(jobs)), output_field=IntegerField())
    limits = Limit.objects.using(jobs.db).annotate(most=_effective(), taken=taken)
    # Mostly nobody waits for any key, and that is one look, however many keys there are.
    return limits.filter(is_any(jobs.keyed(JobState.BLOCKED)), taken__lt=F("most")).order_by("key")


def is_any(keyed: JobQuerySet) -> Exists | Q:
    """Say whether there are such jobs, as a condition."""
    if not can_compile(connections[keyed.db]):
        return Exists(keyed)
    # For EXISTS the planner may read the table, in the hope that one comes soon; so the first in the order of the index.
    return Q(IsNull(Subquery(keyed.order_by("concurrency_key", "-priority", "pk").values("pk")[:1]), False))


def every_limit(jobs: JobQuerySet) -> QuerySet[Any, Any]:
    return with_slots(jobs, Limit.objects.using(jobs.db).order_by("key"))


def with_slots(jobs: JobQuerySet, limits: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    """Return the limits with how many slots there are, ``most``, and how many are ``taken``."""
    return limits.annotate(most=_effective(), taken=_taken(jobs))


def _effective() -> Coalesce:
    return Coalesce("override", "limit")


def _taken(jobs: JobQuerySet) -> Coalesce:
    """Return how many slots of a key are taken, as an expression on its row."""
    taken = jobs.slotted().filter(concurrency_key=OuterRef("key")).order_by().values("concurrency_key")
    return Coalesce(Subquery(taken.annotate(count=Count("pk")).values("count")), 0)


def _portions(keys: Iterable[str]) -> Iterator[list[str]]:
    """Yield the keys sorted, so many at a time as one statement takes."""
    every = sorted(keys)
    for begin in range(0, len(every), KEYS_AT_ONCE):
        yield every[begin : begin + KEYS_AT_ONCE]
