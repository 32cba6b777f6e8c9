"""The queues that a worker serves now, as its exchange sees them: their limits, and whose turn it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from ..models import Queue
from ..models.claim import Kind
from ..models.queue import Lane, matches
from ..models.rooms import Rooms
from ..outcomes import ClaimedJob
from .capacity import IN_THREADS


class Lanes:
    """Used by the exchange thread only."""

    def __init__(self, patterns: Sequence[str], tags: Sequence[str], poll_interval: float) -> None:
        self.patterns = patterns
        self._tags = tags
        self._poll_interval = poll_interval
        self._lanes: dict[str, Lane] = {}
        # By queue, the number of the claim that last took jobs of it.
        self._taken: dict[str, int] = {}
        self._claims = 0
        self._rooms, self._tries = Rooms(), 0

    def look(self) -> None:
        """Read which queues are open to this worker, and their settings."""
        self._lanes = {lane.name: lane for lane in Queue.objects.lanes_for(self.patterns, self._tags)}
        self._taken = {name: number for name, number in self._taken.items() if name in self._lanes}

    def __contains__(self, name: str) -> bool:
        return name in self._lanes

    def may_serve(self, name: str) -> bool:
        """Say whether this worker would serve a queue of this name, as far as its patterns go."""
        return matches(name, self.patterns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def poll_interval(self) -> float:
        """Return how often to look for jobs when nothing is heard: as the most impatient queue says, or the worker's option."""
        own = [lane.poll_interval for lane in self._lanes.values()]
        return min((self._poll_interval if one is None else one for one in own), default=self._poll_interval)

    def in_turn(self, kind: Kind) -> list[str]:
        """Return the names of queues that may have jobs of this kind, those first from which nothing was taken for longest."""
        names = list(self._lanes)
        if kind.paths and not kind.is_without:
            # For the event loop only.
            names = [name for name, lane in self._lanes.items() if lane.executor != IN_THREADS]
        return sorted(names, key=lambda name: self._taken.get(name, 0))

    def rooms(self, held: Iterable[ClaimedJob], free: int) -> Rooms:
        """Take the jobs that stay held: without those whose end the same turn writes, which makes room for what it claims."""
        self._tries = self._tries + 1 if self._rooms.is_contended else 0
        self._rooms = Rooms(self._lanes.values(), held, free, self._tries)
        return self._rooms

    def take_note(self, claimed: Collection[ClaimedJob]) -> None:
        """Remember whose turn it has been."""
        self._claims += 1
        for job in claimed:
            self._taken[job.queue_name] = self._claims

    def with_settings(self, claimed: Sequence[ClaimedJob]) -> Sequence[ClaimedJob]:
        """Give the jobs what their queue says where they say nothing themselves."""
        own = {name: lane for name, lane in self._lanes.items() if lane.timeout is not None or lane.executor}
        return (
            [_with_settings(job, own[job.queue_name]) if job.queue_name in own else job for job in claimed]
            if own
            else claimed
        )


def _with_settings(job: ClaimedJob, lane: Lane) -> ClaimedJob:
    timeout = lane.timeout if job.timeout is None else job.timeout
    return job._replace(timeout=timeout, executor=lane.executor)
