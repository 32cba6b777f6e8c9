"""Where the ready jobs of a queue begin, while a transaction that is held open elsewhere hides it.

A claim leaves dead entries behind in the ready index. Vacuum and the next readers take them away, but not before every
transaction has ended that is older. Until then each claim walks past all of them, and a claim that takes half a
millisecond takes fifty. With a *mark* for each priority, the id up to which everything has been claimed, the walk
begins behind them: priority and id are both boundaries of the index.

What becomes ready below a mark is not seen by a marked claim: a retry, a job given back, one that was committed late, one
of another priority. So marks are made only after claims that were slow, and hold for ``HOLD`` seconds; then, and
whenever a marked claim finds too little, an unmarked one looks at all jobs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

HOLD = 1.0

# Slow: more seconds than this, and this for each job. As many in a row are no accident.
_SLOW, _SLOW_PER_JOB = 0.005, 0.000_05
_IN_A_ROW = 3

# (priority, id) of a claimed job.
Place = tuple[int, int]


class Marks:
    """The marks of one worker, by queue. Used by its exchange only."""

    def __init__(self) -> None:
        self._slow: dict[str, int] = {}
        self._marks: dict[str, dict[int, int]] = {}
        self._until: dict[str, float] = {}

    def of(self, queue_name: str) -> Sequence[Place]:
        """Return ``(priority, lowest id)`` in the order of the queue; nothing while all jobs are to be looked at."""
        if not self._marks or time.monotonic() >= self._until.get(queue_name, 0.0):
            return ()
        return sorted(self._marks[queue_name].items(), reverse=True)

    def move(self, queue_name: str, claimed: Iterable[Place]) -> None:
        """Take note of what a marked claim has taken."""
        marks = self._marks[queue_name]
        for priority, job_id in claimed:
            marks[priority] = max(marks[priority], job_id)

    def learn(self, queue_name: str, claimed: Sequence[Place], is_full: bool, seconds: float) -> None:
        """Take note of what a claim from all jobs has taken, and how long it took."""
        is_slow = is_full and seconds > _SLOW + _SLOW_PER_JOB * len(claimed)
        self._slow[queue_name] = self._slow.get(queue_name, 0) + 1 if is_slow else 0
        if self._slow[queue_name] < _IN_A_ROW:
            self._marks.pop(queue_name, None)
            self._until.pop(queue_name, None)
            return
        marks: dict[int, int] = {}
        for priority, job_id in claimed:
            marks[priority] = max(marks.get(priority, 0), job_id)
        self._marks[queue_name] = marks
        self._until[queue_name] = time.monotonic() + HOLD
