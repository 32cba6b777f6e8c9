"""What an operator changes about slots takes effect at once: a queue is paused or resumed, the limit of a key overridden."""

from __future__ import annotations

from collections.abc import Sequence

from ..states import JobState
from .admission import KEYS_AT_ONCE, offer, take_back
from .database import exclusive
from .job import Job
from .slot_round import give_back_paused


def after_pause(using: str) -> None:
    """Give the slots of ready jobs of paused queues to others, at once; the leader does the same for what follows."""
    give_back_paused(Job.objects.using(using).all())


def after_resume(using: str, names: Sequence[str]) -> None:
    """Let jobs of these queues have free slots again, at once; beyond many keys the leader does it."""
    jobs = Job.objects.using(using).all()
    blocked = jobs.keyed(JobState.BLOCKED).filter(queue_name__in=names).order_by()
    keys = dict(blocked.values_list("concurrency_key", "concurrency_limit").distinct()[:KEYS_AT_ONCE])
    if keys:
        with exclusive():
            offer(jobs, keys)


def after_override(using: str, key: str) -> None:
    """Admit as many jobs of a key as it has slots now, or block the last ready ones."""
    jobs = Job.objects.using(using).all()
    with exclusive():
        take_back(jobs, [key])
        offer(jobs, {key: None})
