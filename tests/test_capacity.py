"""How many jobs a worker has room for, by what it was handed and what it has heard of."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from django_jobs.context import ignore_progress
from django_jobs.models.claim import ANY
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.worker import capacity as capacity_module
from django_jobs.worker.capacity import MOST_AHEAD, STUCK_AFTER, Capacity
from django_jobs.worker.deadlines import Deadlines
from django_jobs.worker.execution import make_runner
from django_jobs.worker.executors.event_loop import LoopExecutor
from django_jobs.worker.executors.threads import ThreadExecutor

from .clocks import StillClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN, COROUTINE = "tests.tasks.noop", "tests.tasks.add_async"


class Loop(LoopExecutor):
    """An event loop that takes jobs and does not run."""

    def submit(self, job: ClaimedJob) -> None:
        """Take it."""


def _ignore(*told: object) -> None:
    """Nobody listens."""


class Parts:
    """A capacity and its executors, whose threads are not running."""

    def __init__(self, threads: int = 2, coroutines: int = 100, claim_ahead: float = 0.05) -> None:
        runner = make_runner([], ignore_progress)
        self.threads = ThreadExecutor(threads, runner, _ignore, _ignore, Deadlines())
        loop = Loop(coroutines, runner, _ignore, _ignore, Deadlines())
        self.capacity = Capacity(self.threads, loop, claim_ahead)
        self._numbers = iter(range(1, 10**9))

    def job(self, path: str = PLAIN) -> ClaimedJob:
        return ClaimedJob(
            next(self._numbers), path, "default", 0, [], {}, 1, 3, None, NOW, NOW, NOW, {}, "default", "w1"
        )

    def submit(self, count: int, path: str = PLAIN) -> list[ClaimedJob]:
        jobs = [self.job(path) for _ in range(count)]
        self.capacity.submit(jobs)
        return jobs

    def begin(self) -> ClaimedJob:
        """Take the next job, as a thread does that is free."""
        job = self.threads._inbox.get_nowait()
        assert job is not None
        return job

    def run(self, *durations: float, began: list[float] | None = None, verb: str = "succeed") -> None:
        """Submit jobs, run them, and let the capacity hear of all of them at once."""
        jobs = self.submit(len(durations))
        for _ in jobs:
            self.begin()
        starts = began or [None] * len(jobs)
        self.capacity.learn(
            [
                Outcome(job, verb, duration=duration, began=start)
                for job, duration, start in zip(jobs, durations, starts, strict=True)
            ]
        )

    @property
    def rooms(self) -> tuple[int, int]:
        return self.capacity._rooms()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, capacity_module)


# Claiming ahead


def test_before_any_job_has_ended_nothing_is_claimed_ahead() -> None:
    assert Parts().rooms == (2, 100)


def test_jobs_that_wait_for_python_count_for_their_share_of_the_time_only() -> None:
    parts = Parts(threads=10)

    # Ten at once, each done in microseconds, and each kept from going on by the nine others.
    parts.run(*[0.060] * 10, began=[100.0] * 10)
    inflated = parts.capacity.ahead()
    for start in range(20):
        parts.run(*[0.060] * 200, began=[101.0 + start] * 200)

    assert inflated == 0
    # 60 ms of ten threads for 200 jobs: 3 ms each.
    assert parts.capacity.ahead() == pytest.approx(10 * 50 / 3, rel=0.05)


def test_a_slow_job_among_small_ones_lengthens_what_all_are_taken_for() -> None:
    parts = Parts(threads=2)
    parts.run(*[0.001] * 50, began=[100.0 + n / 1000 for n in range(50)])
    before = parts.capacity.ahead()

    parts.run(0.001, 0.001, 5.0, began=[104.0, 104.1, 100.0])

    assert before == pytest.approx(100, rel=0.05)
    assert parts.capacity.ahead() == 0


def test_no_more_is_claimed_ahead_than_the_most() -> None:
    parts = Parts(threads=100)

    parts.run(*[0.0] * 100, began=[100.0] * 100)

    assert parts.capacity.ahead() == MOST_AHEAD


def test_jobs_without_a_beginning_count_for_their_duration() -> None:
    parts = Parts(threads=2)

    parts.run(0.010, 0.010)

    assert parts.capacity.ahead() == 10


def test_jobs_that_were_given_back_say_nothing_of_how_long_jobs_take() -> None:
    parts = Parts()
    parts.run(0.010, 0.010)

    parts.run(9.0, verb="release")

    assert parts.capacity.ahead() == 10


# Counting


class Model:
    """What the counters should say, counted from the jobs themselves."""

    def __init__(self) -> None:
        self.inbox: list[ClaimedJob] = []
        self.running: list[ClaimedJob] = []

    def count(self) -> Counter[str]:
        return Counter(job.task_path for job in self.inbox + self.running)


@pytest.mark.parametrize("seed", range(20))
def test_the_counters_never_drift(seed: int) -> None:
    dice = random.Random(seed)
    parts, model = Parts(threads=4, coroutines=8, claim_ahead=0.0), Model()

    for _ in range(300):
        match dice.choice(["submit", "begin", "end", "take back", "take back some"]):
            case "submit":
                for _ in range(dice.randint(0, 5)):
                    [job] = parts.submit(1, dice.choice([PLAIN, COROUTINE]))
                    (model.running if job.task_path == COROUTINE else model.inbox).append(job)
            case "begin" if model.inbox:
                assert parts.begin() == model.inbox[0]
                model.running.append(model.inbox.pop(0))
            case "end":
                ended = dice.sample(model.running, dice.randint(0, len(model.running)))
                parts.capacity.learn([Outcome(job, dice.choice(["succeed", "release", "fail"])) for job in ended])
                model.running = [job for job in model.running if job not in ended]
            case "take back":
                assert parts.capacity.take_back(lambda job: True) == model.inbox
                model.inbox = []
            case "take back some":
                chosen = {job.id for job in model.inbox if dice.random() < 0.5}
                taken = parts.capacity.take_back(lambda job, chosen=chosen: job.id in chosen)
                assert [job.id for job in taken] == sorted(chosen)
                model.inbox = [job for job in model.inbox if job.id not in chosen]
        counts = model.count()
        assert parts.rooms == (4 - counts[PLAIN], 8 - counts[COROUTINE])
        assert parts.threads.waiting == len(model.inbox)


@pytest.mark.parametrize(
    ("plain", "coroutines", "limit", "paths_without"),
    [(0, 0, 2, None), (2, 0, 3, False), (0, 3, 2, True), (1, 2, 1, None), (2, 2, 1, False), (5, 0, 3, False)],
)
def test_what_is_wanted_has_room_whichever_kind_it_is(
    plain: int, coroutines: int, limit: int, paths_without: bool | None
) -> None:
    parts = Parts(threads=2, coroutines=3)
    parts.submit(plain)
    parts.submit(coroutines, COROUTINE)

    wanted = parts.capacity.wanted()

    assert wanted is not None
    assert wanted.limit == limit
    assert (None if wanted.kind == ANY else wanted.kind.is_without) == paths_without


def test_nothing_is_wanted_without_room() -> None:
    parts = Parts(threads=2, coroutines=3)
    parts.submit(2)
    parts.submit(3, COROUTINE)

    assert parts.capacity.wanted() is None


# Stuck


def stuck(parts: Parts) -> bool:
    return parts.capacity.is_stuck


def test_jobs_that_wait_behind_slow_ones_for_long_are_stuck(clock: StillClock) -> None:
    parts = Parts(threads=1)
    parts.submit(3)
    parts.begin()
    before = stuck(parts)

    clock.advance(STUCK_AFTER + 0.1)

    assert (before, stuck(parts)) == (False, True)


def test_jobs_are_not_stuck_while_others_end(clock: StillClock) -> None:
    parts = Parts(threads=1)
    [first, *_] = parts.submit(3)
    parts.begin()
    clock.advance(STUCK_AFTER + 0.1)

    parts.capacity.learn([Outcome(first, "succeed")])

    assert not stuck(parts)


def test_looking_through_jobs_that_wait_does_not_put_off_that_they_are_stuck(clock: StillClock) -> None:
    parts = Parts(threads=1)
    parts.submit(3)
    running = parts.begin()

    for _ in range(4):
        clock.advance(STUCK_AFTER / 2)
        # As for a running job that was asked to stop, or that is of a queue that was paused.
        assert parts.capacity.take_back(lambda job: job.id == running.id) == []

    assert stuck(parts)


def test_the_wait_of_a_job_begins_when_it_is_submitted(clock: StillClock) -> None:
    parts = Parts(threads=1)
    parts.submit(1)
    parts.begin()
    clock.advance(60)

    parts.submit(1)

    assert not stuck(parts)


def test_a_stuck_worker_claims_nothing_ahead_until_the_next_jobs_have_ended() -> None:
    parts: Any = Parts(threads=1)
    parts.run(0.001)

    parts.capacity.stop_claiming_ahead()

    assert parts.capacity.ahead() == 0
    parts.run(0.001)
    assert parts.capacity.ahead() == 50
