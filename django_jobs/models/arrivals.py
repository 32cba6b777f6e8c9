"""What follows the insertion of jobs: slots of their concurrency keys, where some are free, and hints to the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .. import notifications
from ..states import JobState
from .admission import Arrival, take_in
from .insert import Options

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet


def settle_new(
    jobs: JobQuerySet, new: Sequence[tuple[int, Options]], first_state: Callable[[Options], JobState]
) -> None:
    """Let new jobs, ids and options, have the free slots of their keys; tell the workers of the others. In their transaction."""
    is_blocked = {id(one): first_state(one) == JobState.BLOCKED for _, one in new}
    waiting = [(pk, one) for pk, one in new if is_blocked[id(one)]]
    if waiting:
        arrivals = [
            Arrival(pk, one.concurrency_key, one.concurrency_limit, one.priority, one.queue_name) for pk, one in waiting
        ]
        take_in(jobs, arrivals)
    # Of those whoever admits them tells.
    for hint in {one.hint for one in {id(one): one for _, one in new}.values() if not is_blocked[id(one)]}:
        notifications.hint(*hint)
