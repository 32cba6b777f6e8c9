"""In which order a worker of many queues takes their jobs: by priority, and queues take turns, so that none is starved."""

from __future__ import annotations

import pytest

from django_jobs.models import Queue
from django_jobs.outcomes import ClaimedJob

from .exchanges import Hand, enqueue
from .rows import claim, start_worker

pytestmark = pytest.mark.django_db

NAMES = [f"queue-{number:02}" for number in range(20)]


def begin_and_end_all(hand: Hand) -> list[ClaimedJob]:
    """Run the jobs that are held, and return them in the order in which they began."""
    begun = [hand.begin() for _ in hand.exchange.held]
    for job in begun:
        hand.end(job)
    return begun


def test_the_larger_priority_goes_first_whatever_queue_it_is_in() -> None:
    start_worker()
    low = [enqueue(1, queue_name=name, priority=-5)[0] for name in NAMES]
    equal = [enqueue(1, queue_name=name)[0] for name in NAMES]
    high = [enqueue(1, queue_name=name, priority=5)[0] for name in NAMES[::3]]

    taken = []
    while jobs := claim(limit=3, queues=NAMES):
        taken += sorted(jobs, key=lambda job: -job.priority)

    assert [job.priority for job in taken] == [5] * len(high) + [0] * len(equal) + [-5] * len(low)


@pytest.mark.parametrize("flooded", ["a", "z"])
def test_a_flood_in_one_queue_does_not_starve_another(flooded: str) -> None:
    Queue.objects.declare_all([flooded, "quiet"])
    enqueue(20, queue_name=flooded)
    [quiet] = enqueue(1, queue_name="quiet")

    begun = []
    with Hand(concurrency=1, claim_ahead=0.0) as hand:
        for _ in range(4):
            # More come than are taken.
            enqueue(4, queue_name=flooded)
            hand.turn()
            begun += [job.id for job in begin_and_end_all(hand)]

    assert quiet in begun


def test_of_many_queues_with_more_jobs_than_are_taken_each_has_its_turn() -> None:
    Queue.objects.declare_all(NAMES)
    for name in NAMES:
        enqueue(3, queue_name=name)

    begun: list[str] = []
    with Hand(concurrency=2, claim_ahead=0.0) as hand:
        while len(begun) < 40:
            hand.turn()
            begun += [job.queue_name for job in begin_and_end_all(hand)]

    assert sorted(begun[:20]) == NAMES
    assert sorted(begun[20:40]) == NAMES
