"""A worker's turn with the database: writes the outcomes that wait, and claims the next jobs.

One statement where that can be, and all that waits is plain successes; else the same in steps, in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..models import Job
from ..models.claim import ANY
from ..models.compiled import can_compile
from ..models.completion import Written, write_progress
from ..models.database import exclusive, jobs_connection
from ..models.marks import Marks
from ..models.rooms import Rooms
from ..outcomes import ClaimedJob
from .capacity import Wanted
from .outbox import Outbox

# What a transaction has written, and the jobs that it has claimed.
Taken = tuple[Written, Sequence[ClaimedJob]]


class Turns:
    """Used by the exchange thread only."""

    def __init__(self, worker_id: str, outbox: Outbox) -> None:
        self._worker_id = worker_id
        self._outbox = outbox
        self._marks = Marks()

    def take(
        self, progress: Mapping[int, Any], wanted: Wanted | None, queue_names: Sequence[str], rooms: Rooms
    ) -> Iterator[Taken]:
        """Take a turn, and yield after each commit what it has done: the next statement may fail."""
        successes = None if progress else self._outbox.plain_successes()
        if successes is None or not can_compile(jobs_connection()):
            yield self._in_steps(progress, wanted, queue_names, rooms)
            return
        kind, limit = (wanted.kind, wanted.limit) if wanted is not None else (ANY, 0)
        waiting = list(self._outbox.waiting)
        done, claimed = Job.objects.take_turn(self._worker_id, successes, queue_names, limit, kind, self._marks, rooms)
        has_refused = done < len(successes)
        yield Written() if has_refused else Written(done=waiting), claimed
        if has_refused:
            # Which the fence has refused, and what becomes of them, is found out one by one.
            yield self._in_steps({}, None, (), rooms)

    def _in_steps(
        self, progress: Mapping[int, Any], wanted: Wanted | None, queue_names: Sequence[str], rooms: Rooms
    ) -> Taken:
        claimed: list[ClaimedJob] = []
        with exclusive():
            write_progress(self._worker_id, progress)
            written = self._outbox.write()
            if wanted is not None:
                claimed = Job.objects.claim(self._worker_id, queue_names, wanted.limit, wanted.kind, rooms)
        return written, claimed
