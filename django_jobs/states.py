"""The states of a job and the verbs that move it between them.

::

     enqueue(parents)     enqueue(key full)        enqueue          enqueue(run_after)
          v                     v                     v                    v
       WAITING --satisfy--> BLOCKED --admit------> READY <---stage----- SCHEDULED
                                                     | ^                   ^
                                               claim v | release, rescue   | retry, snooze, postpone
                                                   RUNNING ----------------+
                                 succeed |          fail |          cancel |  (also from every unfinished state)
                                         v               v                 v
                                    SUCCEEDED         FAILED           CANCELLED     requeue > READY, prune > gone

"replace", which gives a job that has not started the time of another call, moves it among the four in the first row.
``TRANSITIONS`` is the diagram as a table. ``JobQuerySet`` has one method per verb, and is the only
writer of ``Job.state``. A job with a concurrency key goes wherever READY is drawn through BLOCKED, but for release and
rescue, which keep its slot; ``models/admission.py`` gives the slots out. Nothing enters WAITING yet. Read
``models/job_queryset.py`` next.
"""

from __future__ import annotations

from typing import NamedTuple

from django.db.models.enums import TextChoices
from django.utils.translation import gettext_lazy as _


class JobState(TextChoices):
    WAITING = "waiting", _("waiting")
    BLOCKED = "blocked", _("blocked")
    SCHEDULED = "scheduled", _("scheduled")
    READY = "ready", _("ready")
    RUNNING = "running", _("running")
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


class AttemptOutcome(TextChoices):
    """How an attempt that did not succeed ended."""

    FAILED = "failed", _("failed")
    TIMED_OUT = "timed_out", _("timed out")
    CRASHED = "crashed", _("crashed")
    INTERRUPTED = "interrupted", _("interrupted")
    CANCELLED = "cancelled", _("cancelled")
    SNOOZED = "snoozed", _("snoozed")
    POSTPONED = "postponed", _("postponed")


class WorkerState(TextChoices):
    STARTING = "starting", _("starting")
    RUNNING = "running", _("running")
    PAUSED = "paused", _("paused")
    STOPPING = "stopping", _("stopping")
    STOPPED = "stopped", _("stopped")
    LOST = "lost", _("lost")


UNSTARTED = (JobState.WAITING, JobState.BLOCKED, JobState.SCHEDULED, JobState.READY)
UNFINISHED = (*UNSTARTED, JobState.RUNNING)
# Where a job with a concurrency key waits for a slot of it, and where it has one.
KEYED = (JobState.BLOCKED, JobState.READY, JobState.RUNNING)
SLOTTED = (JobState.READY, JobState.RUNNING)
FINISHED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
LIVE_WORKER = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.PAUSED, WorkerState.STOPPING)
# Attempts that a task's author would call an error; the others ended as somebody asked.
ERROR_OUTCOMES = (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT, AttemptOutcome.CRASHED)


class Transition(NamedTuple):
    """Where a verb may start, where it may lead, and who says it."""

    sources: tuple[JobState, ...]
    targets: tuple[JobState, ...]
    who: str


_RUNNING = (JobState.RUNNING,)

TRANSITIONS: dict[str, Transition] = {
    "stage": Transition(
        (JobState.SCHEDULED,), (JobState.READY, JobState.BLOCKED), "the leader when due, a person with “run now”"
    ),
    "admit": Transition((JobState.BLOCKED,), (JobState.READY,), "whoever frees a slot of the job's concurrency key"),
    "block": Transition(
        (JobState.READY,), (JobState.BLOCKED,), "the leader: the queue is paused, or the limit lowered"
    ),
    "replace": Transition(UNSTARTED, UNSTARTED, "code that enqueues a job with the same unique key"),
    "claim": Transition((JobState.READY,), _RUNNING, "a worker"),
    "succeed": Transition(_RUNNING, (JobState.SUCCEEDED,), "the worker that runs the job"),
    "fail": Transition(_RUNNING, (JobState.FAILED,), "the worker that runs the job"),
    "retry": Transition(_RUNNING, (JobState.SCHEDULED,), "the worker that runs the job"),
    "snooze": Transition(_RUNNING, (JobState.SCHEDULED,), "the worker that runs the job"),
    "postpone": Transition(_RUNNING, (JobState.SCHEDULED,), "a worker whose code cannot run the job"),
    "cancel": Transition(UNFINISHED, (JobState.CANCELLED,), "a person or code; a running job by way of its worker"),
    "release": Transition(_RUNNING, (JobState.READY, JobState.CANCELLED), "the worker that holds the job unharmed"),
    "rescue": Transition(
        _RUNNING,
        (JobState.READY, JobState.SCHEDULED, JobState.FAILED, JobState.CANCELLED),
        "the leader, or the dead worker's supervisor",
    ),
    "requeue": Transition(FINISHED, (JobState.READY, JobState.BLOCKED), "a person or code"),
    "prune": Transition(FINISHED, (), "prunejobs, or the leader"),
}
