"""In which order a worker of many queues takes their jobs: one line for all, so that no queue waits for another's end."""

from __future__ import annotations

import pytest

from django_jobs.models import Queue

from .exchanges import Hand, enqueue
from .rows import claim, start_worker

pytestmark = pytest.mark.django_db

NAMES = [f"queue-{number:02}" for number in range(20)]


def test_jobs_of_all_queues_are_one_line_by_priority_and_then_first_come_first_served() -> None:
    start_worker()
    low = [enqueue(1, queue_name=name, priority=-5)[0] for name in NAMES]
    equal = [enqueue(1, queue_name=name)[0] for name in reversed(NAMES)]
    high = [enqueue(1, queue_name=name, priority=5)[0] for name in NAMES[::3]]

    taken = []
    while jobs := claim(limit=3, queues=NAMES):
        taken += [job.id for job in sorted(jobs, key=lambda job: (-job.priority, job.id))]

    assert taken == [*high, *equal, *low]


@pytest.mark.parametrize("flooded", ["a", "z"])
def test_a_flood_in_one_queue_does_not_starve_another(flooded: str) -> None:
    Queue.objects.declare_all([flooded, "quiet"])
    before = enqueue(20, queue_name=flooded)
    [quiet] = enqueue(1, queue_name="quiet")
    with Hand(concurrency=2, claim_ahead=0.0) as hand:
        begun = []
        while quiet not in begun and len(begun) < 100:
            # More come than are taken.
            enqueue(4, queue_name=flooded)
            hand.turn()
            for _ in range(len(hand.exchange.held)):
                job = hand.begin()
                begun.append(job.id)
                hand.end(job)

    # One more may have begun with it.
    assert begun[:21] == [*before, quiet]
