"""All that can happen to jobs under limits, at once: at the end everything has run, and no limit was passed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

import pytest

from django_jobs import enqueue_many
from django_jobs.models import Job, Limit, Queue
from django_jobs.states import FINISHED, JobState
from tests import jobs
from tests.processes import wait_until

from .conftest import Start
from .ledger import Entry, Ledger
from .test_limits import kill_one

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

DEADLINE = 90
EACH = 30
LIMITS = {"one": 1, "two": 2, "four": 4}
MOST_RUNNING = 3


def running_at(entries: Iterable[Entry], killed: dict[int, float]) -> list[tuple[float, int]]:
    """Return how many attempts were between their beginning and their end, from each moment at which that changed.

    One in a process that was killed ended with it. One that was cancelled before it could say so counts for nothing.
    """
    steps: list[tuple[float, int]] = []
    begun: dict[tuple[int, int], Entry] = {}
    for entry in entries:
        if entry.event == "begin":
            begun[entry.job_id, entry.attempt] = entry
        elif entry.event == "end":
            steps += [(begun.pop((entry.job_id, entry.attempt)).at, 1), (entry.at, -1)]
    for entry in begun.values():
        if entry.pid in killed:
            steps += [(entry.at, 1), (max(entry.at, killed[entry.pid]), -1)]
    now, numbers = 0, []
    for at, step in sorted(steps):
        now += step
        numbers.append((at, now))
    return numbers


def most(numbers: Sequence[tuple[float, int]], since: float = 0.0, until: float = float("inf")) -> int:
    """Return the largest number in a span of time."""
    before = [number for at, number in numbers if at <= since][-1:]
    return max([*before, *(number for at, number in numbers if since < at < until)], default=0)


def enqueue_keys(each: int) -> dict[str, list[int]]:
    """Enqueue so many jobs of each key, and without a key in the queue "narrow"; return their ids."""
    lanes = {key: jobs.stumble.using(concurrency_key=key, concurrency_limit=limit) for key, limit in LIMITS.items()}
    lanes["narrow"] = jobs.stumble.using(queue_name="narrow")
    firsts = cycle(["succeed", "fail", "succeed", "snooze", "succeed"])
    calls = [(name, (next(firsts), 0.02), {}) for _ in range(each) for name in lanes]
    results = enqueue_many([(lanes[name], args, kwargs) for name, args, kwargs in calls])
    ids: dict[str, list[int]] = {name: [] for name in lanes}
    for (name, _, _), result in zip(calls, results, strict=True):
        ids[name].append(int(result.id))
    return ids


def cancel_some(state: JobState, count: int) -> set[int]:
    """Cancel so many jobs that are in this state now, and return their ids."""
    ids = list(Job.objects.filter(state=state).order_by("-pk").values_list("pk", flat=True)[:count])
    Job.objects.filter(pk__in=ids).cancel()
    return set(ids)


def after_more_jobs(ledger: Ledger, count: int = 10) -> None:
    """Wait until so many attempts more have ended, or nothing is left to do."""
    goal = ledger.count("end") + count
    unfinished = Job.objects.exclude(state__in=FINISHED)
    wait_until(lambda: ledger.count("end") >= goal or not unfinished.exists(), timeout=DEADLINE, message=f"{goal} ends")


def wait_for_none(jobs: Any, message: str) -> None:
    wait_until(lambda: not jobs.exists(), timeout=DEADLINE, message=message)


def test_no_limit_is_passed_and_nothing_is_stuck_whatever_happens(start: Start, ledger: Ledger) -> None:
    Queue.objects.declare("default")
    Queue.objects.declare("narrow", max_running=MOST_RUNNING)
    command = start("--processes=3", "--concurrency=3", workers=3)
    fourth = ("--concurrency=3", "--shutdown-timeout=0.05")
    other = start(*fourth)
    ids = enqueue_keys(EACH)
    four = Limit.objects.filter(key="four")
    killed: dict[int, float] = {}

    after_more_jobs(ledger)
    killed.update([kill_one(command, ledger)])
    after_more_jobs(ledger)
    cancelled = cancel_some(JobState.BLOCKED, 5) | cancel_some(JobState.READY, 3) | cancel_some(JobState.RUNNING, 2)
    four.update(override=1)
    slots = Job.objects.slotted().filter(concurrency_key="four")
    wait_until(lambda: slots.count() <= 1, timeout=DEADLINE, message="the lowered limit")
    lowered_at = time.monotonic()
    other.stop()
    after_more_jobs(ledger)
    start(*fourth)
    raised_at = time.monotonic()
    four.update(override=6)
    after_more_jobs(ledger)
    killed.update([kill_one(command, ledger)])
    Queue.objects.pause("default")
    wait_for_none(Job.objects.slotted().filter(queue_name="default"), "slots of a paused queue")
    Queue.objects.resume("default")
    killed.update([kill_one(command, ledger)])

    wait_for_none(Job.objects.exclude(state__in=FINISHED), "the end of all jobs")
    ended = dict(Job.objects.values_list("pk", "state"))
    assert {pk for pk, state in ended.items() if state != JobState.SUCCEEDED} <= cancelled
    numbers = {
        name: running_at([entry for entry in ledger.entries() if entry.job_id in set(ids[name])], killed)
        for name in ids
    }
    assert most(numbers["one"]) == 1
    assert most(numbers["two"]) <= 2
    assert most(numbers["narrow"]) <= MOST_RUNNING
    assert most(numbers["four"], until=raised_at) <= 4
    assert most(numbers["four"], lowered_at, raised_at) <= 1
    assert most(numbers["four"]) <= 6
