"""The time in which a running job may be interrupted: by somebody who wants it to stop, and at the end of its timeout.

The clock of a job runs from where its function (with the middleware around it) begins to where that ends. An attempt that
ends later than its timeout has timed out, whatever it returned: how busy the machine was, and whether the job caught what
was raised in it, changes nothing. Only an answer (``Retry``, ``Snooze``, ``Cancel``, ``Fail``) counts as it does before.
"""

from __future__ import annotations

import math
import time

from ..exceptions import Answer, Interrupt, JobTimeout
from ..outcomes import ClaimedJob
from .deadlines import Deadlines


class Window:
    """What the code that runs a job knows of it. Executors override what they can do."""

    def open(self, job: ClaimedJob) -> None:
        """Begin: raise at once if somebody wants the job to stop already."""

    def close(self) -> None:
        """End: after this no interrupt reaches the job's thread."""

    def asked_to_stop(self) -> Interrupt | None:
        """Return what should be raised in the job, or None."""
        return None

    def time_left(self) -> float | None:
        """Return the seconds until the job's timeout, at least 0; None without one."""
        return None

    @property
    def is_late(self) -> bool:
        """Say whether the job has ended after its timeout."""
        return False


class TimedWindow(Window):
    """A window with a clock."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._deadline: float | None = None
        self._ended_at: float | None = None

    def expire(self) -> None:
        """Interrupt the job if its time is over. Called by the thread that watches the deadlines."""
        raise NotImplementedError  # pragma: no cover

    @property
    def is_late(self) -> bool:
        return self._deadline is not None and self._ended_at is not None and self._ended_at >= self._deadline

    @property
    def is_out_of_time(self) -> bool:
        """Say whether the time is over of the job that runs."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def time_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _start_clock(self, job: ClaimedJob) -> None:
        """Set the clock for a job that begins; put that of the last one away."""
        self._deadline = self._ended_at = None
        # What is no duration was written past us, and limits nothing.
        if job.timeout is not None and math.isfinite(job.timeout):
            self._deadline = time.monotonic() + job.timeout
            self._deadlines.watch(self, self._deadline)

    def _stop_clock(self) -> None:
        """Note when the job has ended. May be called again, and where no clock was set."""
        if self._deadline is not None and self._ended_at is None:
            self._ended_at = time.monotonic()


def as_timeout(error: BaseException, job: ClaimedJob) -> BaseException:
    """Return what an attempt whose time was over has raised as a JobTimeout; answers and other interrupts as they are."""
    if not isinstance(error, JobTimeout):
        if isinstance(error, Answer | Interrupt):
            return error
        late = JobTimeout()
        late.__cause__, late.__traceback__ = error, error.__traceback__
        error = late
    if not error.args and job.timeout is not None:
        error.args = (f"The attempt took longer than its timeout of {job.timeout:g} s.",)
    return error
