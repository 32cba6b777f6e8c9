"""The values that travel between the database and the threads that run jobs. Frozen, plain, no ORM.

What is made for every job is a named tuple: making one costs a fifth of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from .exceptions import InvalidArgument


class Unreadable:
    """What stands for arguments in a row that no Python can hold, such as a number of 5,000 digits: using it raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def refuse(self) -> NoReturn:
        """Raise InvalidArgument, which says why."""
        raise InvalidArgument(f"The arguments in the row of the job cannot be read: {self._error}") from self._error

    def __iter__(self) -> Iterator[Any]:
        self.refuse()

    def keys(self) -> Iterator[Any]:
        return iter(self)


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An earlier attempt of a claimed job; ``exception_class`` is '' unless it was an error."""

    worker_id: str
    outcome: str
    exception_class: str
    traceback: str


class ClaimedJob(NamedTuple):
    """A job that this worker has claimed: all that running it needs. ``attempt`` counts this attempt.

    ``enqueued_at`` is None if what the row has cannot be read. ``timeout`` and ``executor`` may be those of its queue.
    """

    id: int
    task_path: str
    queue_name: str
    priority: int
    args: list[Any]
    kwargs: dict[str, Any]
    attempt: int
    max_attempts: int
    run_after: datetime | None
    enqueued_at: datetime | None
    started_at: datetime
    last_attempted_at: datetime
    meta: dict[str, Any]
    backend: str
    worker_id: str
    history: tuple[PastAttempt, ...] = ()
    timeout: float | None = None
    concurrency_key: str = ""
    executor: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed, cleaned and cut so that any database can store it."""

    exception_class: str = ""
    message: str = ""
    traceback: str = ""
    fingerprint: str = ""


NO_FAILURE = Failure()


class Fate(NamedTuple):
    """What becomes of a job whose worker was lost: whether the attempt counts, whether it was the last, when the next is."""

    counts: bool = True
    ends: bool = False
    delay: float = 0.0


class Outcome(NamedTuple):
    """How one attempt ended, before it is written.

    ``verb`` is one of succeed, fail, retry, snooze, postpone, cancel, release; ``delay`` (seconds) goes with retry,
    snooze and postpone; ``began`` is when the attempt began and ``duration`` how long the function ran (seconds, by the worker's
    monotonic clock).
    ``result`` is None or what JSON holds. ``meta`` is None when the job did not change it. ``is_written``: an atomic
    job has written this in its own transaction.
    """

    job: ClaimedJob
    verb: str
    duration: float = 0.0
    result: Any = None
    delay: float = 0.0
    failure: Failure = NO_FAILURE
    exception: BaseException | None = None
    meta: Mapping[str, Any] | None = None
    began: float | None = None
    is_written: bool = False
