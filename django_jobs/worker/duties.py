"""What the leader does every n seconds: one table. Each duty is correct if two leaders do it at once.

A plugin adds ``(name, seconds, "dotted.path")`` to ``DJANGO_JOBS["DUTIES"]``; the path names a callable without
arguments. Plugins' duties run in a thread of their own, so that a slow one delays nothing of ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from django.utils.module_loading import import_string

from .. import conf, notifications
from ..exceptions import InvalidOption
from ..models import Job, Queue, Schedule, Worker
from ..models.ageing import raise_waiting
from ..models.claim import ANY, Kind
from ..models.database import from_now
from ..models.job_queryset import JobQuerySet
from ..models.queue import ALL_QUEUES
from ..models.rescue import RESCUE_BATCH, rescue_lost
from ..models.slot_round import Round, forget_unused
from ..states import JobState

# The longest that one pass of pruning may take (seconds): the next duty is not kept waiting.
_PRUNE_PASS = 1.0


class Duty(NamedTuple):
    """What to do every so many seconds; sooner, if ``do`` returns a timedelta that is shorter."""

    name: str
    seconds: float
    do: Callable[[], object]


def rescue() -> None:
    """Take the jobs of workers whose lease has ended."""
    while rescue_lost() == RESCUE_BATCH:
        pass


def declare_queues() -> int:
    """Declare the queues that jobs were sent to and nobody declared; return how many there were."""
    known = set(Queue.objects.values_list("name", flat=True))
    missing = [name for name in Job.objects.ready_queues() if name not in known]
    if missing:
        Queue.objects.declare_all(missing)
        notifications.hint(notifications.QUEUES)
    return len(missing)


def bring_up_jobs(patterns: Sequence[str], tags: Sequence[str] = ALL_QUEUES, kind: Kind = ANY) -> bool:
    """Fire schedules, declare queues, make due jobs ready and give slots out, as the leader does; say whether a worker finds jobs now.

    ``kind`` is which jobs of its queues it takes. Asked anew, not of what was done here: a leader may have done it just before.
    """
    Schedule.objects.fire_due()
    declare_queues()
    while Job.objects.stage_due():
        pass
    Round().look(Job.objects.all())
    served = set(Queue.objects.served_by(patterns, tags))
    taken = kind.of(Job.objects.ready())
    return any(name in served and taken.filter(queue_name=name).exists() for name in Job.objects.ready_queues())


def fire_schedules() -> timedelta | None:
    """Make the jobs of the schedules that are due; return how long until the next of them."""
    # Asked before: what comes while this looks is either found due, or still to come.
    wait = Schedule.objects.next_due_in()
    # After a pass that made jobs another looks: there may be more than one has time for.
    return timedelta(0) if Schedule.objects.fire_due() else wait


def prune() -> None:
    """Delete finished jobs that are older than their queue, or the settings, say."""
    until = time.monotonic() + _PRUNE_PASS
    for expired in expired_jobs():
        while expired.prune() and time.monotonic() < until:
            pass


def expired_jobs() -> list[JobQuerySet]:
    """Return the finished jobs past their time: for each queue with times of its own, then for all others."""
    outcomes = (
        ("keep_succeeded", conf.read("KEEP_SUCCEEDED"), [JobState.SUCCEEDED]),
        ("keep_failed", conf.read("KEEP_FAILED"), [JobState.FAILED, JobState.CANCELLED]),
    )
    expired: list[JobQuerySet] = []
    for field, default, states in outcomes:
        finished = Job.objects.finished().filter(state__in=states)
        own = dict(Queue.objects.filter(**{f"{field}__isnull": False}).values_list("name", field))
        for name, keep in own.items():
            # A negative time, written past every check, would delete what has only just ended.
            if keep > timedelta():
                expired.append(finished.filter(queue_name=name, finished_at__lt=from_now(-keep)))
        if default:
            kept = from_now(-timedelta(seconds=default))
            expired.append(finished.exclude(queue_name__in=own).filter(finished_at__lt=kept))
    return expired


def forget_workers() -> None:
    """Delete the rows of processes that ended long ago."""
    Worker.objects.forget(timedelta(seconds=conf.read("KEEP_WORKERS")))


def forget_limits() -> None:
    """Delete the rows of concurrency keys that nobody uses any more."""
    forget_unused(Job.objects.all())


def own_duties(heartbeat_timeout: float) -> list[Duty]:
    """Return the table of our own duties. Dead workers are looked for often enough to keep promise 3."""
    slots = Round()
    return [
        Duty("rescue", min(2.5, heartbeat_timeout / 4), rescue),
        Duty("fire schedules", 1.0, fire_schedules),
        Duty("declare queues", 2.0, declare_queues),
        Duty("give out slots", 1.0, lambda: slots.look(Job.objects.all())),
        Duty("raise priorities", 1.0, raise_waiting),
        Duty("forget limits", 300.0, forget_limits),
        Duty("prune", 60.0, prune),
        Duty("forget workers", 300.0, forget_workers),
    ]


def plugin_duties() -> list[Duty]:
    """Return the duties that the setting names. Raise InvalidOption for an entry that cannot work."""
    duties = []
    for entry in conf.read("DUTIES"):
        try:
            name, seconds, path = entry
            duties.append(_checked(Duty(str(name), float(seconds), import_string(path))))
        except (ImportError, TypeError, ValueError) as error:
            raise InvalidOption(
                f"DJANGO_JOBS['DUTIES'] has {entry!r}; an entry is (name, seconds, 'dotted.path'): {error}"
            ) from error
    return duties


def _checked(duty: Duty) -> Duty:
    if not (math.isfinite(duty.seconds) and duty.seconds > 0):
        raise ValueError(f"the seconds must be more than 0, not {duty.seconds:g}")
    if not callable(duty.do):
        raise TypeError(f"{duty.do!r} is not callable")
    return duty
