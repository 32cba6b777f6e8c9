"""The attempts on a job's page: the newest, each with its error and traceback."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..models import Attempt, Job
from .display import length, moment, state_badge

# A traceback may have 50,000 characters, and a job that snoozes may have thousands of attempts.
MOST_SHOWN = 20


class ShownAttempt(NamedTuple):
    row: Attempt
    outcome: str
    started: str
    took: str


def newest_attempts(job: Job) -> dict[str, Any]:
    """Return what the template shows of a job's attempts, in one query."""
    rows = list(Attempt.objects.filter(job=job).order_by("-number")[: MOST_SHOWN + 1])
    return {"attempts": [_shown(row) for row in rows[:MOST_SHOWN]], "has_older_attempts": len(rows) > MOST_SHOWN}


def _shown(row: Attempt) -> ShownAttempt:
    took = row.ended_at - row.started_at if row.started_at is not None else None
    return ShownAttempt(row, state_badge(row.outcome, row.get_outcome_display()), moment(row.started_at), length(took))
