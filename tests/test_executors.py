"""Threads: an interrupt reaches the job it is meant for, and nothing else; jobs do not see each other."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from queue import Queue
from typing import Any

import pytest
from django.core.cache import caches
from django.utils import timezone, translation

from django_jobs import current_job
from django_jobs.context import ignore_progress
from django_jobs.outcomes import Outcome
from django_jobs.worker.deadlines import Deadlines
from django_jobs.worker.execution import make_runner
from django_jobs.worker.executors.threads import ThreadExecutor

from .attempts import claimed_job
from .conftest import wait_until
from .executors import TIMEOUT, Gate, Threads
from .worker_tasks import do, doing

pytestmark = pytest.mark.django_db

variable: ContextVar[str] = ContextVar("variable", default="untouched")


@pytest.fixture
def start_threads() -> Iterator[Callable[[int], Threads]]:
    started: list[Threads] = []

    def start(size: int) -> Threads:
        started.append(Threads(size))
        return started[-1]

    yield start
    for threads in started:
        threads.end()


@pytest.fixture
def one(start_threads: Callable[[int], Threads]) -> Threads:
    return start_threads(1)


# Running


def test_a_job_runs_in_a_thread_and_its_outcome_is_told(one: Threads) -> None:
    job = one.begin(lambda: threading.current_thread().name)

    outcome = one.outcome()
    assert (outcome.job, outcome.verb, outcome.result) == (job, "succeed", "django_jobs thread 1")


def test_as_many_jobs_run_at_once_as_there_are_threads(start_threads: Callable[[int], Threads]) -> None:
    threads = start_threads(3)
    together = threading.Barrier(3, timeout=TIMEOUT)

    for _ in range(3):
        threads.begin(lambda: together.wait() * 0)

    assert [threads.outcome().verb for _ in range(3)] == ["succeed"] * 3


def test_jobs_of_one_thread_run_in_the_order_in_which_they_came(one: Threads) -> None:
    jobs = [one.begin(lambda: None) for _ in range(5)]

    assert [one.outcome().job for _ in jobs] == jobs


def test_jobs_that_have_not_begun_can_be_taken_back_in_their_order(one: Threads) -> None:
    gate = Gate()
    running = one.begin(gate)
    gate.wait()
    waiting = [one.begin(lambda: None) for _ in range(3)]

    taken = one.executor.take_back()

    gate.open()
    assert taken == waiting
    assert one.outcome().job == running
    assert one.run(lambda: None).verb == "succeed"


def test_taking_back_does_not_undo_the_order_to_stop(one: Threads) -> None:
    gate = Gate()
    one.begin(gate)
    gate.wait()
    one.executor.stop()
    waiting = one.begin(lambda: None)

    taken = one.executor.take_back()

    gate.open()
    assert taken == [waiting]
    wait_until(lambda: not one.executor.is_alive)


# Each job in a state of its own


def test_context_variables_of_a_job_are_not_seen_by_the_next(one: Threads) -> None:
    one.run(lambda: variable.set("left behind") and None)

    assert one.run(variable.get).result == "untouched"


def test_a_language_and_a_time_zone_of_a_job_are_not_seen_by_the_next(one: Threads) -> None:
    def body() -> None:
        translation.activate("de")
        timezone.activate("Europe/Berlin")

    one.run(body)

    assert one.run(lambda: [translation.get_language(), timezone.get_current_timezone_name()]).result == [
        "en-us",
        "UTC",
    ]


def test_the_current_job_is_that_of_the_thread(one: Threads) -> None:
    jobs = [one.begin(lambda: (job := current_job()) and job.job_id) for _ in range(2)]

    assert [one.outcome().result for _ in jobs] == [job.id for job in jobs]
    assert current_job() is None


def test_jobs_of_one_thread_share_its_caches(one: Threads) -> None:
    first, second = one.run(lambda: id(caches["default"])), one.run(lambda: id(caches["default"]))

    assert first.result == second.result


def test_a_cache_or_a_backend_that_cannot_be_made_is_no_trouble_for_jobs_that_do_not_use_it(
    start_threads: Callable[[int], Threads], settings: Any
) -> None:
    settings.CACHES = {"default": settings.CACHES["default"], "broken": {"BACKEND": "no.such.cache"}}
    settings.TASKS = {**settings.TASKS, "broken": {"BACKEND": "no.such.backend"}}

    outcome = start_threads(1).run(lambda: "done")

    assert outcome.result == "done"


# The end


def test_a_thread_ends_after_the_order_to_stop(one: Threads) -> None:
    one.executor.stop()

    wait_until(lambda: not one.executor.is_alive)
    assert one.deaths.empty()


def test_jobs_that_came_before_the_order_to_stop_are_run(one: Threads) -> None:
    job = one.begin(lambda: None)
    one.executor.stop()

    assert one.outcome().job == job


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(outcome: Outcome) -> None:
        raise RuntimeError("nobody takes outcomes any more")

    deaths: Queue[object] = Queue()
    executor = ThreadExecutor(1, make_runner([], ignore_progress), refuse, deaths.put, Deadlines())
    executor.start()

    executor.submit(claimed_job(do, doing(lambda: None)))

    assert deaths.get(timeout=TIMEOUT) is executor
    wait_until(lambda: not executor.is_alive)


def test_what_a_failed_job_held_is_let_go_of_with_its_outcome(one: Threads) -> None:
    class Large:
        """What takes much memory."""

    held: list[weakref.ref[Large]] = []

    def body() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no")

    gc.disable()
    try:
        one.run(body)
        # The thread has left the frames of the job before.
        one.run(lambda: None)

        assert held[0]() is None
    finally:
        gc.enable()
