"""Threads: an interrupt reaches the job it is meant for, and nothing else; jobs do not see each other."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from queue import Empty, Queue

import pytest
from django.core.cache import caches
from django.utils import timezone, translation

from django_jobs import current_job
from django_jobs.context import JobContext, ignore_progress
from django_jobs.exceptions import Interrupt, JobCancelled, JobInterrupted
from django_jobs.outcomes import Outcome
from django_jobs.worker.execution import make_runner
from django_jobs.worker.executors.threads import ThreadExecutor

from .attempts import claimed_job
from .conftest import wait_until
from .executors import TIMEOUT, Gate, Threads
from .worker_tasks import do, do_with_context, doing

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


# Interrupts


def test_an_interrupt_stops_the_job_that_it_is_meant_for(one: Threads) -> None:
    gate = Gate()
    job = one.begin(gate)
    gate.wait()

    one.executor.interrupt({job.id}, JobCancelled)

    outcome = one.outcome()
    assert (outcome.job, outcome.verb) == (job, "cancel")


def test_an_interrupt_leaves_the_jobs_of_other_threads_alone(start_threads: Callable[[int], Threads]) -> None:
    threads = start_threads(2)
    mine, other = Gate(), Gate()
    meant, spared = threads.begin(mine), threads.begin(other)
    mine.wait()
    other.wait()

    threads.executor.interrupt({meant.id}, JobInterrupted)

    assert [(outcome.job, outcome.verb) for outcome in [threads.outcome()]] == [(meant, "release")]
    other.open()
    assert [(outcome.job, outcome.verb) for outcome in [threads.outcome()]] == [(spared, "succeed")]


def test_a_job_that_swallows_exceptions_is_stopped_all_the_same(one: Threads) -> None:
    gate = Gate()

    def body() -> None:
        try:
            gate()
        except Exception:
            pytest.fail("An interrupt is no Exception.")

    job = one.begin(body)
    gate.wait()
    one.executor.interrupt({job.id}, JobCancelled)

    assert one.outcome().verb == "cancel"


def test_a_job_may_clean_up_when_it_is_interrupted(one: Threads) -> None:
    gate, cleaned = Gate(), threading.Event()

    def body() -> None:
        try:
            gate()
        finally:
            cleaned.set()

    job = one.begin(body)
    gate.wait()
    one.executor.interrupt({job.id}, JobCancelled)

    assert one.outcome().verb == "cancel"
    assert cleaned.is_set()


def test_only_the_first_of_several_interrupts_counts(one: Threads) -> None:
    gate, after = Gate(), Gate()

    def body() -> str:
        try:
            gate()
        except Interrupt:
            after()
        return "ended in its own way"

    job = one.begin(body)
    gate.wait()
    one.executor.interrupt({job.id}, JobCancelled)
    after.wait()
    one.executor.interrupt({job.id}, JobInterrupted)
    after.open()

    assert one.outcome().result == "ended in its own way"


def test_a_job_can_ask_whether_it_should_stop(one: Threads) -> None:
    gate = Gate()

    def body(context: JobContext) -> None:
        try:
            gate()
        except Interrupt:
            # It holds off the interrupt, and stops at a place of its choice.
            context.check()

    job = one.begin(body, do_with_context)
    gate.wait()
    one.executor.interrupt({job.id}, JobCancelled)

    assert one.outcome().verb == "cancel"


def test_a_job_that_nobody_wants_to_stop_goes_on_when_it_asks(one: Threads) -> None:
    one.begin(lambda context: context.check(), do_with_context)

    assert one.outcome().verb == "succeed"


def test_an_interrupt_for_a_job_that_has_ended_does_not_reach_the_next(one: Threads) -> None:
    gate = Gate()
    ended = one.begin(lambda: None)
    one.outcome()
    one.begin(gate)
    gate.wait()

    one.executor.interrupt({ended.id}, JobCancelled)

    gate.open()
    assert one.outcome().verb == "succeed"


def test_an_interrupt_for_a_job_that_waits_does_not_reach_the_one_before(one: Threads) -> None:
    gate = Gate()
    one.begin(gate)
    gate.wait()
    waiting = one.begin(lambda: None)

    one.executor.interrupt({waiting.id}, JobCancelled)

    gate.open()
    assert [one.outcome().verb, one.outcome().verb] == ["succeed", "succeed"]


def test_an_interrupt_that_is_set_while_the_job_ends_hits_neither_the_thread_nor_the_next_job(one: Threads) -> None:
    gate = Gate()
    window = one.executor._windows[0]
    job = one.begin(gate)
    gate.wait()

    with window._lock:
        # The job returns, and its thread waits for the lock to close the window: the interrupt is set meanwhile.
        gate.open()
        wait_until(lambda: _is_closing(one), message="the job's thread at the end of the job")
        one.executor.interrupt({job.id}, JobCancelled)
    ended = one.outcome()
    following = [one.run(lambda: sum(range(1000))) for _ in range(3)]

    assert (ended.job, ended.verb) == (job, "succeed")
    assert [outcome.verb for outcome in following] == ["succeed"] * 3
    assert one.executor.is_alive


def _is_closing(threads: Threads) -> bool:
    """Say whether the thread stands in the function that closes its window."""
    frame = sys._current_frames().get(threads.executor._threads[0].ident or 0)
    return frame is not None and frame.f_code.co_name == "close"


def test_interrupts_at_any_moment_leave_every_thread_alive_and_every_outcome_told(
    start_threads: Callable[[int], Threads],
) -> None:
    threads = start_threads(2)
    jobs = [threads.begin(lambda: sum(range(200))) for _ in range(400)]

    outcomes: list[Outcome] = []
    while len(outcomes) < len(jobs):
        for job in jobs[len(outcomes) : len(outcomes) + 4]:
            threads.executor.interrupt({job.id}, JobCancelled)
        outcomes += _those_told(threads)

    assert {outcome.job.id for outcome in outcomes} == {job.id for job in jobs}
    assert {outcome.verb for outcome in outcomes} <= {"succeed", "cancel"}
    assert threads.executor.is_alive
    assert threads.deaths.empty()


def _those_told(threads: Threads) -> list[Outcome]:
    told = []
    while True:
        try:
            told.append(threads.outcomes.get_nowait())
        except Empty:
            return told


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
    executor = ThreadExecutor(1, make_runner([], ignore_progress), refuse, deaths.put)
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
