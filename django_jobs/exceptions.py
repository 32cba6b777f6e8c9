"""Every error of django_jobs, in one tree, and the answers that a job may raise.

Three families: errors (something was wrong), answers (a job says what should become of it) and
interrupts (the worker stops a running job from outside). Answers derive from ``Exception``: a job
raises them on purpose. Interrupts derive from ``BaseException``, as ``asyncio.CancelledError``
does, so that a job's ``except Exception`` does not swallow them.
"""

from __future__ import annotations

from datetime import timedelta

Delay = float | int | timedelta


class JobsError(Exception):
    """The root of every error that django_jobs raises itself."""


class InvalidArgument(JobsError, TypeError, ValueError):
    """An argument of a job cannot be stored as JSON, or the task's unique key cannot be made of the arguments."""


class InvalidResult(JobsError, TypeError, ValueError):
    """A task returned something that cannot be stored as JSON."""


class InvalidOption(JobsError, ValueError):
    """A setting, flag or environment variable has a value that cannot work."""


class DuplicateJob(JobsError):
    """The unique key of a job with ``on_conflict="raise"`` is taken.

    ``job_id`` is the id of the job that has it, as its result's ``id``; None when that is an earlier one of the same
    ``enqueue_many``, of which none was written.
    """

    def __init__(self, task_path: str, unique_key: str, job_id: str | None) -> None:
        super().__init__(task_path, unique_key, job_id)
        self.task_path, self.unique_key, self.job_id = task_path, unique_key, job_id

    def __str__(self) -> str:
        holder = f"Job #{self.job_id}" if self.job_id else "An earlier job of the same enqueue_many()"
        return f"{holder} has the unique key {self.unique_key!r} already: no job of {self.task_path} was enqueued."


class UnknownTask(JobsError, LookupError):
    """A path does not name a declared task."""


class UnknownQueue(JobsError, LookupError):
    """A queue was named that nobody declared."""


class UnknownSchedule(JobsError, LookupError):
    """A name that no schedule has."""


class LeaseLost(JobsError):
    """This worker's lease has ended: its jobs may belong to another worker by now."""


class WorkerLost(JobsError):
    """The worker process died, or went silent past its lease, while the job was running."""


class Answer(JobsError):
    """Base of what a job may raise to say what should become of it."""

    def __init__(self, reason: object = "") -> None:
        super().__init__(str(reason))
        self.reason = str(reason)


class Retry(Answer):
    """Run the job again after ``delay`` (seconds or timedelta); None means the task's backoff.

    The attempt counts: after ``max_attempts`` the job fails.
    """

    def __init__(self, delay: Delay | None = None, reason: object = "") -> None:
        super().__init__(reason)
        self.delay = delay


class Snooze(Answer):
    """Run the job again after ``delay`` (seconds or timedelta); the attempt does not count."""

    def __init__(self, delay: Delay, reason: object = "") -> None:
        super().__init__(reason)
        self.delay = delay


class Cancel(Answer):
    """End the job as cancelled, without another attempt."""


class Fail(Answer):
    """End the job as failed at once, however many attempts are left."""


class Interrupt(BaseException):
    """Base of what the worker raises inside a running job to stop it."""


class JobCancelled(Interrupt):
    """Somebody cancelled the job. Also the error of a cancelled job's result."""


class JobTimeout(Interrupt):
    """The attempt has taken longer than the job's ``timeout``: it has failed, and is retried as after an error."""


class JobInterrupted(Interrupt):
    """The worker is shutting down; the job is given back and its attempt does not count."""
