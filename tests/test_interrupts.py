"""Interrupts of jobs in threads: one reaches the job that it is meant for, and nothing else."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from queue import Empty

import pytest

from django_jobs.context import JobContext
from django_jobs.exceptions import Interrupt, JobCancelled, JobInterrupted
from django_jobs.outcomes import Outcome

from .conftest import wait_until
from .executors import Gate, Threads
from .worker_tasks import do_with_context

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
    jobs = [threads.begin(lambda: sum(range(200))) for _ in range(200)]

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
