"""Limits in real processes, four of them: how many jobs run at once, and when they start, is read from the ledger."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from django_jobs import enqueue_many
from django_jobs.models import Job, Queue
from django_jobs.states import FINISHED, JobState
from tests import jobs
from tests.processes import Command, wait_until, workers_of

from .conftest import Start
from .ledger import Entry, Ledger
from .observe import PATIENCE, states_of, wait_until_finished

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

FOUR = ("--processes=4", "--concurrency=3")


def most_at_once(entries: Iterable[Entry], killed: dict[int, float]) -> int:
    """Return how many attempts were between their beginning and their end at one moment, at the most.

    An attempt in a process that was killed ended with it.
    """
    moments: list[tuple[float, int]] = []
    begun: dict[tuple[int, int], Entry] = {}
    for entry in entries:
        if entry.event == "begin":
            begun[entry.job_id, entry.attempt] = entry
            moments.append((entry.at, 1))
        elif entry.event == "end":
            begun.pop((entry.job_id, entry.attempt))
            moments.append((entry.at, -1))
    moments += [(killed[entry.pid], -1) for entry in begun.values()]
    now = most = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def alive_children(command: Command) -> set[int]:
    """Return the process ids of the supervisor's children that have not been killed."""
    alive = set()
    for child in psutil.Process(command.pid).children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                alive.add(child.pid)
    return alive


def living_workers(command: Command) -> set[int]:
    """Return the process ids of the command's workers: without one that was killed and whose row does not say so yet."""
    return alive_children(command) & {worker.pid for worker in workers_of(command)}


def kill_one(command: Command, ledger: Ledger) -> tuple[int, float]:
    """Kill a worker of the command in the middle of a job; return its process id, and when."""
    running = {entry.pid for entry in ledger.entries("begin")[-3:]}
    live = wait_until(lambda: living_workers(command), message="a worker to kill")
    pid, now = next(iter(running & live or live)), time.monotonic()
    os.kill(pid, signal.SIGKILL)
    # A process takes its time to die: until it has, the next kill could choose it again.
    wait_until(lambda: pid not in alive_children(command), message=f"the end of process {pid}")
    return pid, now


def kill_all(command: Command) -> None:
    """Kill the supervisor first, so that it restarts nobody, and its workers."""
    supervisor = psutil.Process(command.pid)
    victims = [supervisor, *supervisor.children(recursive=True)]
    for victim in victims:
        victim.kill()
    command.wait()


def of_jobs(ledger: Ledger, ids: Iterable[Any]) -> list[Entry]:
    wanted = {int(result.id) for result in ids}
    return [entry for entry in ledger.entries() if entry.job_id in wanted]


@pytest.mark.parametrize("limit", [1, 3])
def test_jobs_of_a_key_never_overlap_beyond_its_limit_though_workers_are_killed(
    start: Start, ledger: Ledger, limit: int
) -> None:
    command = start(*FOUR, workers=4)
    groups = defaultdict(list)
    briefly = {key: jobs.pause_briefly.using(concurrency_key=key, concurrency_limit=limit) for key in "ab"}
    for number in range(60):
        key = "ab"[number % 2]
        groups[key].append(briefly[key].enqueue(0.02))
    killed = {}

    for done in (10, 25, 40):
        wait_until(lambda done=done: ledger.count("end") >= done, timeout=PATIENCE, message=f"{done} jobs")
        pid, at = kill_one(command, ledger)
        killed[pid] = at

    everything = [*groups["a"], *groups["b"]]
    wait_until_finished(everything, timeout=90)
    assert states_of(everything) == {JobState.SUCCEEDED}
    for results in groups.values():
        assert most_at_once(of_jobs(ledger, results), killed) <= limit


def test_jobs_of_a_queue_never_overlap_beyond_its_limit_for_all_though_workers_are_killed(
    start: Start, ledger: Ledger
) -> None:
    Queue.objects.declare("default", max_running=3)
    command = start(*FOUR, workers=4)
    results = jobs.pause_briefly.enqueue_many([((0.02,), {})] * 60)
    killed = {}

    for done in (10, 30):
        wait_until(lambda done=done: ledger.count("end") >= done, timeout=PATIENCE, message=f"{done} jobs")
        pid, at = kill_one(command, ledger)
        killed[pid] = at

    wait_until_finished(results, timeout=90)
    assert most_at_once(ledger.entries(), killed) <= 3


def test_as_many_jobs_of_a_key_run_at_once_as_it_has_slots(start: Start, ledger: Ledger) -> None:
    start(*FOUR, workers=4)
    keyed = jobs.hold.using(concurrency_key="a", concurrency_limit=3)

    results = [keyed.enqueue() for _ in range(5)]

    wait_until(lambda: ledger.count("begin") == 3, timeout=PATIENCE, message="three jobs")
    ledger.open_gate()
    wait_until_finished(results)
    assert most_at_once(ledger.entries(), {}) == 3


def test_a_limit_that_is_lowered_and_raised_at_run_time_counts_within_seconds(start: Start, ledger: Ledger) -> None:
    Queue.objects.declare("default", max_running=4)
    start(*FOUR, workers=4)
    held = jobs.hold.enqueue_many([(("first",), {})] * 4 + [(("second",), {})] * 8)
    wait_until(lambda: ledger.count("begin") == 4, timeout=PATIENCE, message="four jobs")

    Queue.objects.declare("default", upsert=True, max_running=1)
    ledger.open_gate("first")
    wait_until(lambda: ledger.count("begin") == 5, timeout=PATIENCE, message="the fifth job")
    wait_until_finished(held[:4])
    lowered = Job.objects.running().count()
    Queue.objects.declare("default", upsert=True, max_running=3)
    wait_until(lambda: ledger.count("begin") == 7, timeout=PATIENCE, message="the seventh job")

    assert lowered == 1
    ledger.open_gate("second")
    wait_until_finished(held)
    assert most_at_once(ledger.entries(), {}) == 4


def test_in_no_window_more_jobs_start_than_the_rate_and_its_burst(start: Start, ledger: Ledger) -> None:
    limit, window = 5, 1.0
    Queue.objects.declare("default", rate_limit=limit, rate_window=window)
    start(*FOUR, workers=4)

    results = jobs.touch.enqueue_many([((), {})] * 25)

    wait_until_finished(results, timeout=60)
    # By the database's clock, which the limit goes by: when a busy machine begins a claimed job is another matter.
    starts = sorted(Job.objects.values_list("last_attempted_at", flat=True))
    in_windows = [sum(0 <= (at - begin).total_seconds() < window for at in starts) for begin in starts]
    assert max(in_windows) <= 2 * limit
    # Tokens are counted by a statement just before the one that stamps the start: a busy machine may stop between the two.
    assert (starts[-1] - starts[0]).total_seconds() >= (25 - limit) * window / limit - 0.25
    assert Counter(Job.objects.values_list("state", flat=True)) == {JobState.SUCCEEDED: 25}


def test_nothing_of_a_key_is_stuck_after_all_workers_were_killed_at_once(start: Start, ledger: Ledger) -> None:
    command = start(*FOUR, workers=4)
    keyed = [jobs.pause_briefly.using(concurrency_key=f"key {number % 5}") for number in range(40)]
    results = enqueue_many([(each, (0.02,), {}) for each in keyed])
    wait_until(lambda: ledger.count("end") >= 5, timeout=PATIENCE, message="five jobs")

    kill_all(command)
    start(*FOUR, workers=4)

    wait_until_finished(results, timeout=90)
    assert not Job.objects.exclude(state__in=FINISHED).exists()
