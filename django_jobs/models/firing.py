"""What becomes of a schedule whose moment has come: its jobs, and its next moment. Right whoever does it, at once or alone.

Each schedule has a transaction of its own. Its row is locked, so that two never fire one at a time and an edit comes
before or after; the unique pair of schedule and moment in the jobs makes a second run of one moment impossible. A
schedule that cannot run stays due, with its fault in its row, and the others run.

A moment that comes late is run all the same. Only when the oldest is later than ``GRACE`` was nobody there: then the
schedule's ``catch_up`` says which are run. "none": the newest, if it is not late. "latest": the newest. "all": the newest
``catch_up_limit``. The others count as missed.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import InterfaceError, OperationalError, connections
from django.db.models import F

from .. import signals
from ..exceptions import DuplicateJob, UnknownSchedule
from ..task import find_task
from .database import as_column, as_moment, database_now, exclusive, lock_free_rows, lock_rows
from .job import Job
from .schedule_problems import refuse_problems

if TYPE_CHECKING:
    from .schedule import Schedule
    from .schedule_queryset import ScheduleQuerySet

logger = logging.getLogger("django_jobs")

# A moment is late when it is fired later than this: nobody was there.
GRACE = timedelta(seconds=60)
# So many missed moments are counted one by one; of more, what came before is only said to be as many.
MOST_COUNTED = 5000
# How long a pass may take (seconds): the leader has other duties. The rest follows with the next one.
LONGEST_PASS = 1.0
# Among so many of its last jobs one is looked for that is unfinished.
_LAST = 100


class Fired(NamedTuple):
    """A job that a schedule has made."""

    job_id: int
    scheduled_for: datetime | None


class Moments(NamedTuple):
    """The moments of a schedule that have come: the newest of them, in order, how many there were, and the next."""

    newest: list[datetime]
    number: int
    upcoming: datetime | None


def fire_due(schedules: ScheduleQuerySet, now: datetime | None = None) -> int:
    """Fire those that are due, the longest due first, for a second at most; return how many jobs were made."""
    until = time.monotonic() + LONGEST_PASS
    # Those without a fault come first: those that stay due must not use up every pass.
    due = list(schedules.due(now).order_by("fault", "next_run_at").values_list("pk", flat=True))
    made = 0
    for pk in due:
        made += _fire_apart(schedules, pk, now)
        if time.monotonic() >= until:
            break
    return made


def _fire_apart(schedules: ScheduleQuerySet, pk: int, now: datetime | None) -> int:
    """Fire one schedule; whatever is wrong with it is written into its row and harms no other."""
    try:
        return fire(schedules, pk, now)
    except (OperationalError, InterfaceError):
        # Not its own fault, if the database is away: whoever called tries again.
        if not connections[schedules.db].is_usable():
            raise
        logger.exception("Schedule #%s could not be fired; it is tried again.", pk)
    except Exception as error:  # noqa: BLE001 - the project's code makes keys of arguments, and receives signals
        note_fault(schedules.filter(pk=pk), f"{type(error).__name__}: {error}")
    return 0


def note_fault(schedule: ScheduleQuerySet, fault: str) -> None:
    """Write into the row of a schedule why it does not run, and log it if that is new."""
    fault = fault.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()[:1000]
    if schedule.exclude(fault=fault).update(fault=fault):
        logger.warning("Schedule %r does not run: %s", schedule.values_list("name", flat=True).first(), fault)


def fire(schedules: ScheduleQuerySet, pk: int, now: datetime | None = None) -> int:
    """Make the jobs of a schedule that is due and move it on; return how many. 0 if another has it or it is due no more.

    Raise InvalidOption if it has a problem, and what its task raises when it is enqueued.
    """
    with exclusive():
        schedule = lock_free_rows(schedules.due(now).filter(pk=pk)).first()
        if schedule is None:
            return 0
        refuse_problems(schedule.name, schedule.settings())
        now = now or database_now(schedules.db)
        assert schedule.next_run_at is not None
        first = as_moment(schedule.next_run_at)
        if first > now + timedelta(milliseconds=1):
            _put_back(schedules, schedule, now)
            return 0
        now = max(now, first)
        moments = moments_until(schedule, first, now)
        fired = _fire_each(schedules, schedule, moments, now)
    _announce(type(schedule), schedule.name, fired)
    return len(fired)


def _put_back(schedules: ScheduleQuerySet, schedule: Schedule, now: datetime) -> None:
    """Find the next moment anew: it was found while the clock was ahead. What has run by then does not run again."""
    changes = {"next_run_at": as_column(next(schedule.moments_after(now), None))} if schedule.cron else {}
    schedules.filter(pk=schedule.pk).update(
        updated_at=as_column(now), last_run_at=schedule.last_run_at and as_column(now), **changes
    )


def moments_until(schedule: Schedule, first: datetime, now: datetime) -> Moments:
    """Return the moments from ``first`` to ``now``, of which no more are kept than a policy may want."""
    most = max(schedule.catch_up_limit, int(GRACE.total_seconds()) + 1)
    newest = deque([first], maxlen=most)
    count = 1
    for moment in schedule.moments_after(first):
        if moment > now:
            return Moments(list(newest), count, moment)
        newest.append(moment)
        count += 1
        if count == MOST_COUNTED:
            newest.extend(_newest(schedule, first, now, most))
            return Moments(list(newest), count, next(schedule.moments_after(now), None))
    return Moments(list(newest), count, None)


def _newest(schedule: Schedule, first: datetime, now: datetime, most: int) -> list[datetime]:
    """Return the newest moments, found from the end: a schedule of seconds has a million in two weeks."""
    window = GRACE
    while True:
        begin = max(first, now - window)
        found = list(takewhile(lambda moment: moment <= now, schedule.moments_after(begin)))
        if len(found) >= most or begin == first:
            return found[-most:]
        window *= 4


def chosen(schedule: Schedule, moments: Moments, now: datetime) -> Sequence[datetime]:
    """Return the moments that are run."""
    newest = moments.newest
    if moments.number <= len(newest) and now - newest[0] < GRACE:
        return newest
    match schedule.catch_up:
        case "none":
            return newest[-1:] if now - newest[-1] < GRACE else []
        case "all":
            return newest[-schedule.catch_up_limit :]
    return newest[-1:]


def _fire_each(schedules: ScheduleQuerySet, schedule: Schedule, moments: Moments, now: datetime) -> list[Fired]:
    wanted = chosen(schedule, moments, now)
    columns = {as_column(moment): moment for moment in wanted}
    done = set(Job.objects.filter(schedule=schedule, scheduled_for__in=columns).values_list("scheduled_for", flat=True))
    new = [moment for column, moment in columns.items() if column not in done]
    fired = [made for made in (_fire_moment(schedule, moment, now) for moment in new) if made is not None]
    late = sum(now - as_moment(made.scheduled_for) >= GRACE for made in fired if made.scheduled_for)
    changes: dict[str, Any] = {"next_run_at": as_column(moments.upcoming), "fault": ""}
    if fired:
        changes["last_run_at"] = as_column(now)
    schedules.filter(pk=schedule.pk).update(
        late=F("late") + late,
        missed=F("missed") + moments.number - len(wanted),
        skipped=F("skipped") + len(new) - len(fired),
        **changes,
    )
    return fired


def _fire_moment(schedule: Schedule, moment: datetime, now: datetime) -> Fired | None:
    """Make the job of one moment; None if the last is unfinished and must be waited for, or another has the unique key."""
    if schedule.overlap != "allow":
        unfinished = _unfinished_jobs(schedule)
        if unfinished and schedule.overlap == "skip":
            return None
        if unfinished:
            Job.objects.filter(pk__in=unfinished).cancel()
    begin = moment + jitter_of(schedule, moment)
    try:
        result = _enqueue(schedule, begin if begin > now else None)
    except DuplicateJob:
        return None
    if not _made_a_job(result):
        return None
    Job.objects.filter(pk=result.id).update(schedule=schedule, scheduled_for=as_column(moment))
    return Fired(int(result.id), moment)


def _unfinished_jobs(schedule: Schedule) -> list[int]:
    """Return its unfinished jobs: of those of its last moments, and of those that somebody has run by hand.

    A schedule that waits for its last job, or cancels it, has no older ones; but it may have finished ones by the million.
    """
    jobs = Job.objects.filter(schedule=schedule)
    last = jobs.filter(scheduled_for__isnull=False).order_by("-scheduled_for").values_list("pk", flat=True)[:_LAST]
    # Two looks: as one, with "or", SQLite would read all jobs of the schedule.
    found = Job.objects.filter(pk__in=list(last)).unfinished().values_list("pk", flat=True)
    return [*found, *jobs.filter(scheduled_for=None).unfinished().values_list("pk", flat=True)]


def jitter_of(schedule: Schedule, moment: datetime) -> timedelta:
    """Return how long the run of this moment waits: a part of the jitter, the same whoever asks."""
    digest = hashlib.sha256(f"{schedule.name} {moment.timestamp():.6f}".encode()).digest()
    return timedelta(seconds=schedule.jitter * int.from_bytes(digest[:8], "big") / 2**64)


def _enqueue(schedule: Schedule, run_after: datetime | None = None) -> Any:
    task = find_task(schedule.task_path)
    changed = task.using(
        queue_name=schedule.queue_name or None,
        priority=schedule.priority,
        run_after=as_column(run_after),
    )
    return changed.enqueue(*schedule.args, **schedule.kwargs)


def _made_a_job(result: Any) -> bool:
    """Say whether a new job is in the database: no other had its unique key, and its backend is no one for tests."""
    return getattr(result, "is_new", False)


def run_now(schedules: ScheduleQuerySet, schedule: Schedule) -> Any:
    """Enqueue a job of the schedule at once and return its TaskResult; see ``ScheduleQuerySet.run_now``."""
    refuse_problems(schedule.name, schedule.settings())
    with exclusive():
        # Else it could be deleted before the job points to it.
        if not list(lock_rows(schedules.filter(pk=schedule.pk)).values_list("pk")):
            raise UnknownSchedule(f"The schedule {schedule.name!r} was deleted.")
        result = _enqueue(schedule)
        if _made_a_job(result):
            Job.objects.filter(pk=result.id).update(schedule=schedule)
    if _made_a_job(result):
        _announce(type(schedule), schedule.name, [Fired(int(result.id), None)])
    return result


def _announce(sender: type, name: str, fired: Sequence[Fired]) -> None:
    for job_id, scheduled_for in fired:
        signals.send(signals.schedule_fired, sender, schedule=name, job_id=job_id, scheduled_for=scheduled_for)
