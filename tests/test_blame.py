"""Who is charged when a worker dies: the job that kills it each time, and nobody else more than once."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from django_jobs.models import Attempt, Job, Worker
from django_jobs.models.rescue import FIRST_APART, LONGEST_APART, MOST_DOUBTS, rescue_lost
from django_jobs.states import AttemptOutcome, JobState

from . import tasks
from .rows import claim, database_time, is_due_in, outcome, row, start_worker, write

pytestmark = pytest.mark.django_db


def enqueue(count: int, **using: Any) -> list[int]:
    return [int(tasks.noop.using(**using).enqueue().id) for _ in range(count)]


class Host:
    """A host with one worker at a time, which dies again and again."""

    def __init__(self) -> None:
        self.lives = 0

    def begin(self, limit: int = 10) -> list[int]:
        """Start a worker and have it claim what is ready; return the ids."""
        self.lives += 1
        start_worker(self.worker_id)
        return [job.id for job in claim(self.worker_id, limit)]

    @property
    def worker_id(self) -> str:
        return f"w{self.lives}"

    def die(self) -> None:
        rescue_lost([self.worker_id], "It was killed.")

    def finish(self, ids: Collection[int]) -> None:
        """Have the worker end these jobs as succeeded."""
        rows = Job.objects.filter(pk__in=ids)
        for attempt in set(rows.values_list("attempt", flat=True)):
            of_this = list(rows.filter(attempt=attempt).values_list("pk", flat=True))
            assert Job.objects.succeed(self.worker_id, attempt, of_this) == len(of_this)

    def crash(self, limit: int = 10) -> list[int]:
        begun = self.begin(limit)
        self.die()
        return begun


@pytest.fixture
def host() -> Host:
    return Host()


def counted(pk: int) -> int:
    """Return how many of its three attempts a job has lost; one that succeeded is not lost."""
    job = row(pk)
    return job.attempt - (job.max_attempts - 3) - (job.state == JobState.SUCCEEDED)


def crashes(pk: int) -> int:
    return Attempt.objects.filter(job_id=pk, outcome=AttemptOutcome.CRASHED).count()


def states(ids: Sequence[int]) -> list[str]:
    return [row(pk).state for pk in ids]


def test_the_first_crash_counts_for_every_job_of_the_worker(host: Host) -> None:
    jobs = enqueue(4)

    host.crash()

    assert [counted(pk) for pk in jobs] == [1] * 4
    assert states(jobs) == [JobState.READY] * 4


def test_a_job_that_is_alone_among_fresh_ones_is_charged_each_time(host: Host) -> None:
    [killer] = enqueue(1, priority=10)
    fresh: list[int] = []

    for _ in range(3):
        fresh += enqueue(2)
        host.begin()
        # The others have come beside it since.
        host.finish([pk for pk in fresh if crashes(pk) and row(pk).state == JobState.RUNNING])
        host.die()

    assert (row(killer).state, row(killer).attempt) == (JobState.FAILED, 3)
    assert max(map(counted, fresh)) == 1


def test_of_suspects_that_crashed_equally_often_none_is_charged_and_half_wait(host: Host) -> None:
    jobs = enqueue(5)
    host.crash()
    since = database_time()

    host.crash()

    assert [counted(pk) for pk in jobs] == [1] * 5
    assert sorted(states(jobs)) == [JobState.READY] * 2 + [JobState.SCHEDULED] * 3
    for place, job in enumerate(Job.objects.filter(state=JobState.SCHEDULED).order_by("run_after")):
        assert is_due_in(job, FIRST_APART * (1 + place / 3), since)


def test_of_several_suspects_none_is_charged_also_where_one_crashed_more_often(host: Host) -> None:
    [unlucky] = enqueue(1)
    host.crash()
    [killer] = enqueue(1)
    host.crash()

    host.crash()

    # Its first crash, and the one in which it was the only suspect. From then on there are two.
    assert counted(unlucky) == 2
    assert counted(killer) == 1
    assert JobState.FAILED not in states([unlucky, killer])


def test_a_crash_that_does_not_count_says_so_in_the_history(host: Host) -> None:
    first, second = enqueue(2)
    host.crash()
    host.crash()

    told = list(Attempt.objects.filter(job_id=first).order_by("number").values_list("message", flat=True))

    assert told[0] == "Worker w1 was lost while it held this job. It was killed."
    assert told[1].startswith("Worker w2 was lost while it held this job. It was killed. It does not count:")
    assert crashes(second) == 2


def test_suspects_of_two_workers_that_die_at_once_are_not_held_against_each_other() -> None:
    jobs = enqueue(2)
    for worker_id in ("w1", "w2"):
        start_worker(worker_id)
        claim(worker_id, 1)
    rescue_lost(["w1", "w2"])
    for worker_id in ("w3", "w4"):
        start_worker(worker_id)
        claim(worker_id, 1)

    rescue_lost(["w3", "w4"])

    # Each was the only suspect of its worker.
    assert [counted(pk) for pk in jobs] == [2, 2]
    assert states(jobs) == [JobState.READY] * 2


def test_of_two_suspects_the_one_that_began_last_runs_first(host: Host) -> None:
    first, second = enqueue(2)
    host.crash()
    for order in ([second, first], [first, second]):
        host.begin()
        # As if each had been claimed by itself.
        Job.objects.filter(pk=order[0]).update(last_attempted_at=F("last_attempted_at") - timedelta(seconds=5))

        host.die()

        assert states(order) == [JobState.SCHEDULED, JobState.READY]
        Job.objects.filter(pk__in=[first, second]).stage()


def test_suspects_wait_twice_as_long_each_time_up_to_an_hour(host: Host) -> None:
    first, second = enqueue(2, max_attempts=20)
    host.crash()

    for n in range(MOST_DOUBTS):
        since = database_time()
        host.crash()
        [waiting] = [pk for pk in (first, second) if row(pk).state == JobState.SCHEDULED]
        assert is_due_in(row(waiting), min(FIRST_APART * 2**n, LONGEST_APART), since), n
        Job.objects.filter(pk=waiting).stage()


def test_jobs_that_crash_together_for_ever_end_as_failed(host: Host) -> None:
    jobs = enqueue(2)

    for _ in range(3 + MOST_DOUBTS):
        assert set(host.crash()) == set(jobs)
        Job.objects.filter(pk__in=jobs).stage()

    assert states(jobs) == [JobState.FAILED] * 2
    assert [counted(pk) for pk in jobs] == [3, 3]


def test_a_suspect_that_was_asked_to_stop_is_cancelled(host: Host) -> None:
    asked, other = enqueue(2)
    host.crash()
    host.begin()
    Job.objects.filter(pk=asked).cancel()

    host.die()

    assert row(asked).state == JobState.CANCELLED
    assert counted(other) == 1


def test_a_failure_is_no_crash(host: Host) -> None:
    start_worker()
    failing, other = enqueue(2)
    write(*[outcome(job, "retry") for job in claim()])
    Job.objects.filter(pk__in=[failing, other]).stage()

    host.crash()

    assert states([failing, other]) == [JobState.READY] * 2
    assert [counted(pk) for pk in (failing, other)] == [2, 2]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("concurrency", [2, 10, 30])
def test_whatever_runs_beside_it_a_job_that_kills_each_time_fails_and_no_other(
    host: Host, seed: int, concurrency: int
) -> None:
    chance = random.Random(seed)
    jobs = enqueue(40)
    killer = chance.choice(jobs)
    lives = 0
    while row(killer).state != JobState.FAILED:
        begun = host.begin(concurrency)
        if killer in begun:
            # What is short is done by the time the worker dies, and what is long is not.
            host.finish([pk for pk in begun if pk != killer and chance.random() < 0.3])
            host.die()
            lives += 1
        else:
            host.finish(begun)
        if not begun:
            Job.objects.all().stage()
        assert lives <= 3 + MOST_DOUBTS

    for _ in range(10):
        Job.objects.all().stage()
        host.finish(host.begin(40))
    others = [pk for pk in jobs if pk != killer]
    assert set(states(others)) == {JobState.SUCCEEDED}
    assert max(map(counted, others)) <= 1
    assert counted(killer) == 3
    assert not Worker.objects.filter(worker_id=host.worker_id, state="lost").exists()
