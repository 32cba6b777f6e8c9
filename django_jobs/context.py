"""What a running job can know and say: the ``context`` argument, also ``current_job()``.

Nothing here touches the database: progress goes through ``report``, which the worker hands in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from .compat import TaskContext
from .exceptions import Interrupt, InvalidArgument

Progress = dict[str, Any]

# The largest number in JSON that every reader takes for what it is, as a double.
_LARGEST = 1e308

_current: ContextVar[JobContext | None] = ContextVar("django_jobs_current_job", default=None)


def ignore_progress(job_id: int, progress: Progress) -> None:
    """Take progress where nobody stores it: in tests with the immediate and dummy backends."""


def never_interrupted() -> Interrupt | None:
    """Say that nobody wants the job to stop."""
    return None


def never_over() -> float | None:
    """Say that the job has no timeout, or that nobody watches it."""
    return None


class JobContext(TaskContext):
    """The job that is running, for the task's function. Its attributes cannot be set; ``meta`` can be filled.

    ``meta`` is a dict of the job's own, saved with the outcome of the attempt; keep it small and
    within what JSON holds. ``task_result`` and ``attempt`` are Django's. The result may be given as a function,
    which is called when the job asks for it: most do not, and making one costs more than the rest of the context.
    """

    __slots__ = ("_result", "_time_left", "asked_to_stop", "job_id", "meta", "number", "report")

    _result: Any
    job_id: int | None
    meta: dict[str, Any]
    number: int | None
    report: Callable[[int, Progress], None]
    asked_to_stop: Callable[[], Interrupt | None]
    _time_left: Callable[[], float | None]

    def __init__(
        self,
        *,
        task_result: Any,
        job_id: int | None = None,
        meta: dict[str, Any] | None = None,
        number: int | None = None,
        report: Callable[[int, Progress], None] = ignore_progress,
        asked_to_stop: Callable[[], Interrupt | None] = never_interrupted,
        time_left: Callable[[], float | None] = never_over,
    ) -> None:
        put = object.__setattr__
        put(self, "_result", task_result)
        put(self, "job_id", job_id)
        put(self, "meta", {} if meta is None else meta)
        put(self, "number", number)
        put(self, "report", report)
        put(self, "asked_to_stop", asked_to_stop)
        put(self, "_time_left", time_left)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"The context of a job is read-only: {name} cannot be set. What to keep goes into meta.")

    @property
    def task_result(self) -> Any:  # type: ignore[override]
        """Django's TaskResult of the job, running."""
        if callable(self._result):
            object.__setattr__(self, "_result", self._result())
        return self._result

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.task_result.attempts if self.number is None else self.number

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Show how far the job is. Cheap: written at most once a second, and with the outcome.

        Visible at once, also while the job is inside a transaction of its own. Raise InvalidArgument
        for anything but two numbers and a text.
        """
        for name, value in (("done", done), ("total", 0 if total is None else total)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
                raise InvalidArgument(f"progress(): {name} must be a finite number, not a {type(value).__name__}.")
        if self.job_id is not None:
            text = str(message)[:500].replace("\x00", "\ufffd").encode(errors="replace").decode()
            self.report(self.job_id, {"done": done, "total": total, "message": text})

    @property
    def time_left(self) -> float | None:
        """The seconds until this attempt's timeout, 0.0 when it is over; None without a timeout."""
        return self._time_left()

    def check(self) -> None:
        """Raise JobCancelled or JobInterrupted if somebody wants this job to stop, JobTimeout if it is out of time.

        For long loops that hold off interrupts, and for code that wants to stop at a place of its choice.
        """
        interrupt = self.asked_to_stop()
        if interrupt is not None:
            raise interrupt


def current_job() -> JobContext | None:
    """Return the context of the job that this thread or coroutine is running, else None."""
    return _current.get()


set_current_job = _current.set
reset_current_job = _current.reset
