"""The values that travel between the database and the threads that run jobs. Frozen, plain, no ORM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An earlier attempt of a claimed job; ``exception_class`` is '' unless it was an error."""

    worker_id: str
    exception_class: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that this worker has claimed: all that running it needs. ``attempt`` counts this attempt."""

    id: int
    task_path: str
    queue_name: str
    priority: int
    args: list[Any]
    kwargs: dict[str, Any]
    attempt: int
    max_attempts: int
    run_after: datetime | None
    enqueued_at: datetime
    started_at: datetime
    last_attempted_at: datetime
    meta: dict[str, Any]
    backend: str
    worker_id: str
    history: tuple[PastAttempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed, cleaned and cut so that any database can store it."""

    exception_class: str = ""
    message: str = ""
    traceback: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended, before it is written.

    ``verb`` is one of succeed, fail, retry, snooze, cancel, release; ``delay`` (seconds) goes with retry and
    snooze; ``duration`` is how long the function ran (seconds, by the worker's monotonic clock).
    ``result`` is None or what JSON holds. ``meta`` is None when the job did not change it.
    """

    job: ClaimedJob
    verb: str
    duration: float = 0.0
    result: Any = None
    delay: float = 0.0
    failure: Failure = field(default_factory=Failure)
    exception: BaseException | None = field(default=None, compare=False)
    meta: Mapping[str, Any] | None = None
    started_at: datetime | None = None
