"""What an operator changes about slots takes effect at once: a queue is paused or resumed, the limit of a key overridden."""

from __future__ import annotations

from .admission import offer, take_back
from .database import exclusive
from .job import Job
from .slot_round import Round, give_back_paused


def after_pause(using: str) -> None:
    """Give the slots of ready jobs of paused queues to others, at once; the leader does the same for what follows."""
    give_back_paused(Job.objects.using(using).all())


def after_resume(using: str) -> None:
    """Let jobs of resumed queues have free slots again, at once; where there are very many keys the leader goes on."""
    Round().look(Job.objects.using(using).all())


def after_override(using: str, key: str) -> None:
    """Admit as many jobs of a key as it has slots now, or block the last ready ones."""
    jobs = Job.objects.using(using).all()
    with exclusive():
        take_back(jobs, [key])
        offer(jobs, {key: None})
