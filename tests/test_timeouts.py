"""What a timeout does to a job: where it is said, whom it stops, and how the attempt ends. The clock is the test's."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group

from django_jobs import Snooze, current_job, enqueue_many, task
from django_jobs.compat import InvalidTask
from django_jobs.conf import LONGEST_DURATION
from django_jobs.context import JobContext
from django_jobs.exceptions import Interrupt, JobCancelled, JobInterrupted, JobTimeout
from django_jobs.models import Job, Queue
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.states import AttemptOutcome, JobState
from django_jobs.worker import deadlines, window
from django_jobs.worker.execution import make_runner
from django_jobs.worker.window import Window

from . import tasks
from .attempts import claimed_job, history
from .clocks import StillClock
from .conftest import wait_until
from .exchanges import Hand, enqueue
from .executors import AsyncGate, Gate, Loop, Threads
from .rows import claim, row, start_worker, state_of, write
from .worker_tasks import (
    do,
    do_and_retry_os_errors,
    do_async,
    do_async_with_context,
    do_atomically,
    do_once,
    do_with_context,
    doing,
)

pytestmark = pytest.mark.django_db

LIMIT = 10.0
ERROR = "django_jobs.exceptions.JobTimeout"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, window, deadlines)


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(1)
    yield threads
    threads.end()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.end()


def run_out(parts: Threads | Loop, clock: StillClock) -> None:
    """Let the time of whatever runs be over."""
    clock.advance(LIMIT)
    parts.deadlines.run_once()


def timed_out(threads: Threads, clock: StillClock, body: Callable[..., Any], task: Any = do) -> Outcome:
    """Run a job whose time is over when it has reached a gate, which it is given."""
    gate = Gate()
    threads.executor.submit(claimed_job(task.using(timeout=LIMIT), doing(lambda *args: body(gate, *args))))
    gate.wait()
    run_out(threads, clock)
    return threads.outcome()


def wait_at(gate: Gate) -> None:
    gate()


# Where it is said


@pytest.mark.parametrize("given", [90, 90.0, timedelta(seconds=90)])
def test_a_timeout_is_seconds_or_a_timedelta(given: Any) -> None:
    changed = tasks.noop.using(timeout=given)

    assert (changed.timeout, type(changed.timeout)) == (90.0, float)
    assert tasks.noop.timeout is None


@pytest.mark.parametrize(
    "given",
    [0, -1, timedelta(), timedelta(seconds=-1), math.nan, math.inf, LONGEST_DURATION + 1, timedelta.max, True, "5", []],
)
def test_a_timeout_that_cannot_be_kept_is_refused_with_its_value(given: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        tasks.noop.using(timeout=given)

    assert "tests.tasks.noop: timeout is a number of seconds" in str(caught.value)
    assert f"not {given!r}" in str(caught.value)


def test_the_timeout_of_a_declaration_is_checked_too() -> None:
    with pytest.raises(InvalidTask, match="timeout is a number of seconds"):
        task(timeout=0)(do_once.func)


def test_each_job_has_its_own_timeout_in_its_row() -> None:
    single = tasks.noop.using(timeout=1.5).enqueue()
    many = enqueue_many([(tasks.noop.using(timeout=2), [], {}), (tasks.noop, [], {})])

    assert [row(result.id).timeout for result in (single, *many)] == [1.5, 2.0, None]
    start_worker()
    assert [job.timeout for job in claim()] == [1.5, 2.0, None]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_says_nothing_has_the_timeout_of_its_queue_as_it_is_when_it_is_claimed() -> None:
    Queue.objects.declare("default", timeout=5)
    enqueue(1)
    enqueue(1, timeout=7)
    with Hand(concurrency=10) as hand:
        hand.settle()
        of_queue, own = hand.begin(), hand.begin()
        Queue.objects.update(timeout=9.5)
        enqueue(1)
        hand.look()
        changed = hand.begin()
        Queue.objects.update(timeout=None)
        enqueue(1)
        hand.look()
        without = hand.begin()

    assert [job.timeout for job in (of_queue, own, changed, without)] == [5.0, 7.0, 9.5, None]


# Whom it stops


def test_a_job_in_a_thread_is_stopped_at_its_limit(threads: Threads, clock: StillClock) -> None:
    outcome = timed_out(threads, clock, wait_at)

    assert (outcome.verb, type(outcome.exception)) == ("retry", JobTimeout)
    assert str(outcome.exception) == "The attempt took longer than its timeout of 10 s."


def test_a_coroutine_is_stopped_at_its_limit(loop: Loop, clock: StillClock) -> None:
    gate = AsyncGate()
    loop.begin(gate, do_async.using(timeout=LIMIT))
    gate.wait()

    run_out(loop, clock)

    outcome = loop.outcome()
    assert (outcome.verb, type(outcome.exception)) == ("retry", JobTimeout)
    assert str(outcome.exception) == "The attempt took longer than its timeout of 10 s."


def test_a_job_is_left_alone_before_its_limit(threads: Threads, clock: StillClock) -> None:
    gate = Gate()
    threads.begin(gate, do.using(timeout=LIMIT))
    gate.wait()
    clock.advance(LIMIT - 0.5)

    pause = threads.deadlines.run_once()

    gate.open()
    assert (pause, threads.outcome().verb) == (0.5, "succeed")


def test_a_coroutine_is_left_alone_before_its_limit(loop: Loop, clock: StillClock) -> None:
    gate = AsyncGate()
    loop.begin(gate, do_async.using(timeout=LIMIT))
    gate.wait()
    clock.advance(LIMIT - 0.5)

    pause = loop.deadlines.run_once()

    gate.open()
    assert (pause, loop.outcome().verb) == (0.5, "succeed")


def test_the_time_counts_from_where_the_job_begins_and_not_from_its_claim(threads: Threads, clock: StillClock) -> None:
    first, second = Gate(), Gate()
    threads.begin(first)
    first.wait()
    threads.begin(second, do.using(timeout=LIMIT))
    clock.advance(10 * LIMIT)

    threads.deadlines.run_once()
    first.open()
    second.wait()

    assert threads.deadlines.run_once() == LIMIT
    second.open()
    assert [threads.outcome().verb, threads.outcome().verb] == ["succeed", "succeed"]


def test_only_jobs_with_a_timeout_are_watched(threads: Threads, loop: Loop) -> None:
    limited, unlimited, coroutine = Gate(), Gate(), AsyncGate()
    threads.begin(limited, do.using(timeout=LIMIT))
    limited.wait()
    assert len(threads.deadlines._deadlines) == 1
    limited.open()
    threads.begin(unlimited)
    loop.begin(coroutine)
    unlimited.wait()
    coroutine.wait()

    assert (threads.deadlines._deadlines, loop.deadlines._deadlines) == ({}, {})
    unlimited.open()
    coroutine.open()


def test_the_limit_of_a_job_that_has_ended_does_not_reach_the_next(threads: Threads, clock: StillClock) -> None:
    assert threads.run(lambda: None).verb == "succeed"
    threads.executor.submit(claimed_job(do.using(timeout=LIMIT), doing(lambda: None)))
    threads.outcome()
    gate = Gate()
    threads.begin(gate)
    gate.wait()

    run_out(threads, clock)
    # Also where the watch was about to say so when the job ended.
    threads.executor._windows[0].expire()

    gate.open()
    assert threads.outcome().verb == "succeed"


@pytest.mark.parametrize("timeout", [math.nan, math.inf, -math.inf])
def test_a_row_with_a_timeout_that_is_no_time_has_none(threads: Threads, timeout: float) -> None:
    threads.executor.submit(claimed_job(do, doing(lambda: None))._replace(timeout=timeout))

    assert threads.outcome().verb == "succeed"
    assert threads.deadlines._deadlines == {}


# What the job knows of it


def test_a_job_can_ask_how_much_time_it_has(clock: StillClock, threads: Threads) -> None:
    def body() -> list[float | None]:
        job = current_job()
        assert job is not None
        before = job.time_left
        clock.advance(4)
        return [before, job.time_left]

    threads.executor.submit(claimed_job(do.using(timeout=LIMIT), doing(body)))
    limited = threads.outcome()
    unlimited = threads.run(body)

    assert (limited.result, unlimited.result) == ([10.0, 6.0], [None, None])


def test_a_coroutine_can_ask_how_much_time_it_has(clock: StillClock, loop: Loop) -> None:
    async def body(context: JobContext) -> float | None:
        clock.advance(4)
        return context.time_left

    loop.begin(body, do_async_with_context.using(timeout=LIMIT))

    assert loop.outcome().result == 6.0


def test_a_check_raises_when_the_time_is_over(clock: StillClock, threads: Threads, loop: Loop) -> None:
    left: list[float | None] = []
    went_on: list[bool] = []

    def body(context: JobContext) -> None:
        context.check()
        # Nobody has come to interrupt it yet.
        clock.advance(LIMIT + 1)
        left.append(context.time_left)
        context.check()
        went_on.append(True)

    async def coroutine(context: JobContext) -> None:
        body(context)

    threads.begin(body, do_with_context.using(timeout=LIMIT))
    loop.begin(coroutine, do_async_with_context.using(timeout=LIMIT))

    outcomes = [threads.outcome(), loop.outcome()]
    assert [type(outcome.exception) for outcome in outcomes] == [JobTimeout, JobTimeout]
    assert {str(outcome.exception) for outcome in outcomes} == {"The attempt took longer than its timeout of 10 s."}
    assert (left, went_on) == ([0.0, 0.0], [])


def test_a_job_in_the_tests_of_a_project_has_no_limit() -> None:
    job = claimed_job(do.using(timeout=LIMIT), doing(lambda: current_job().time_left))  # type: ignore[union-attr]

    outcome = make_runner([], lambda *told: None).execute(job, Window())

    assert (outcome.verb, outcome.result) == ("succeed", None)


# How the attempt ends


def test_a_job_that_returns_after_its_limit_has_timed_out(threads: Threads, clock: StillClock) -> None:
    caught: list[BaseException] = []

    def body(gate: Gate) -> str:
        try:
            gate()
        except JobTimeout as error:
            caught.append(error)
        return "done, but late"

    outcome = timed_out(threads, clock, body)

    assert (outcome.verb, outcome.result, type(outcome.exception)) == ("retry", None, JobTimeout)
    assert len(caught) == 1


def test_a_coroutine_that_returns_after_its_limit_has_timed_out(loop: Loop, clock: StillClock) -> None:
    gate = AsyncGate()

    caught: list[BaseException] = []

    async def body() -> str:
        try:
            await gate()
        except asyncio.CancelledError as error:
            caught.append(error)
        return "done, but late"

    loop.begin(body, do_async.using(timeout=LIMIT))
    gate.wait()
    run_out(loop, clock)

    outcome = loop.outcome()
    assert (outcome.verb, outcome.result, type(outcome.exception)) == ("retry", None, JobTimeout)
    assert len(caught) == 1


def test_a_job_that_nobody_came_to_stop_has_timed_out_all_the_same(threads: Threads, clock: StillClock) -> None:
    threads.executor.submit(claimed_job(do.using(timeout=LIMIT), doing(lambda: clock.advance(LIMIT))))

    assert type(threads.outcome().exception) is JobTimeout


def test_a_job_that_had_returned_before_its_limit_has_succeeded(threads: Threads, clock: StillClock) -> None:
    gate = Gate()
    window = threads.executor._windows[0]
    threads.begin(gate, do.using(timeout=LIMIT))
    gate.wait()

    with window._lock:
        # The job returns in time, and its thread waits for the lock to close the window until the time is over.
        gate.open()
        wait_until(lambda: window._ended_at is not None, message="the end of the job")
        run_out(threads, clock)

    outcomes = [threads.outcome(), *(threads.run(lambda: sum(range(1000))) for _ in range(3))]
    assert [outcome.verb for outcome in outcomes] == ["succeed"] * 4


def test_a_job_is_interrupted_once(threads: Threads, clock: StillClock) -> None:
    again = Gate()

    def body(gate: Gate) -> None:
        try:
            gate()
        except JobTimeout:
            # What it does about the end is not cut off in its turn.
            again()

    gate = Gate()
    job = claimed_job(do.using(timeout=LIMIT), doing(lambda: body(gate)))
    threads.executor.submit(job)
    gate.wait()
    run_out(threads, clock)
    again.wait()
    threads.executor._windows[0].expire()
    threads.executor.interrupt({job.id}, JobInterrupted)
    again.open()

    assert type(threads.outcome().exception) is JobTimeout


def test_a_job_may_say_itself_that_it_has_no_time_left(threads: Threads) -> None:
    def body() -> None:
        raise JobTimeout

    threads.begin(body, do.using(timeout=LIMIT))

    outcome = threads.outcome()
    assert (outcome.verb, outcome.failure.exception_class) == ("retry", ERROR)
    assert outcome.failure.message == "The attempt took longer than its timeout of 10 s."


def test_an_error_that_follows_from_the_interrupt_is_shown_with_it(threads: Threads, clock: StillClock) -> None:
    def body(gate: Gate) -> None:
        try:
            gate()
        except JobTimeout:
            raise ValueError("half written") from None

    outcome = timed_out(threads, clock, body)

    assert (outcome.failure.exception_class, type(outcome.exception)) == (ERROR, JobTimeout)
    assert "ValueError: half written" in outcome.failure.traceback
    assert outcome.failure.traceback.endswith("JobTimeout: The attempt took longer than its timeout of 10 s.\n")


def test_a_job_that_answers_when_its_time_is_over_gets_what_it_asks_for(threads: Threads, clock: StillClock) -> None:
    def body(gate: Gate, context: JobContext) -> None:
        try:
            gate()
        except JobTimeout:
            context.meta["next"] = 7
            raise Snooze(5) from None

    outcome = timed_out(threads, clock, body, do_with_context)

    assert (outcome.verb, outcome.delay, outcome.meta) == ("snooze", 5.0, {"next": 7})


def interrupted_and_then_late(threads: Threads, clock: StillClock, reason: type[Interrupt]) -> Outcome:
    """Interrupt a job whose time runs out while it cleans up, and return its outcome."""
    gate, after = Gate(), Gate()

    def body() -> None:
        try:
            gate()
        finally:
            after()

    job = claimed_job(do.using(timeout=LIMIT), doing(body))
    threads.executor.submit(job)
    gate.wait()
    threads.executor.interrupt({job.id}, reason)
    after.wait()
    run_out(threads, clock)
    after.open()
    return threads.outcome()


def test_a_cancel_before_the_limit_counts(threads: Threads, clock: StillClock) -> None:
    outcome = interrupted_and_then_late(threads, clock, JobCancelled)

    assert (outcome.verb, type(outcome.exception)) == ("cancel", JobCancelled)


def test_a_cancel_after_the_limit_counts_too(threads: Threads, clock: StillClock) -> None:
    outcome = timed_out(threads, clock, wait_at)
    Job.objects.filter(pk=outcome.job.id).cancel()

    write(outcome)

    assert state_of(outcome.job) == JobState.CANCELLED
    assert [attempt.outcome for attempt in history(outcome.job)] == [AttemptOutcome.CANCELLED]


def test_a_job_that_a_shutdown_interrupts_is_given_back_also_after_its_limit(
    threads: Threads, clock: StillClock
) -> None:
    outcome = interrupted_and_then_late(threads, clock, JobInterrupted)

    assert outcome.verb == "release"


def test_the_history_and_the_result_say_that_it_timed_out(threads: Threads, clock: StillClock) -> None:
    outcome = timed_out(threads, clock, wait_at)

    write(outcome)

    [attempt] = history(outcome.job)
    stored = row(outcome.job.id)
    assert (attempt.outcome, attempt.exception_class) == (AttemptOutcome.TIMED_OUT, ERROR)
    assert attempt.message == "The attempt took longer than its timeout of 10 s."
    assert (stored.state, stored.attempt, stored.max_attempts) == (JobState.SCHEDULED, 1, 3)
    [error] = do.get_result(str(outcome.job.id)).errors
    assert (error.exception_class_path, error.exception_class) == (ERROR, JobTimeout)


def test_the_next_attempt_knows_of_it_and_has_its_whole_time(threads: Threads, clock: StillClock) -> None:
    outcome = timed_out(threads, clock, wait_at)
    write(outcome)
    Job.objects.filter(pk=outcome.job.id).stage()

    [again] = claim()

    assert (again.timeout, again.attempt) == (LIMIT, 2)
    assert [(past.outcome, past.exception_class) for past in again.history] == [(AttemptOutcome.TIMED_OUT, ERROR)]


@pytest.mark.parametrize(
    ("declared", "verb"),
    [(do, "retry"), (do_once, "fail"), (do_and_retry_os_errors, "fail")],
    ids=["any error", "last attempt", "other errors"],
)
def test_a_timeout_is_retried_as_other_errors_are(
    threads: Threads, clock: StillClock, declared: Any, verb: str
) -> None:
    outcome = timed_out(threads, clock, wait_at, declared)

    write(outcome)

    assert outcome.verb == verb
    assert (outcome.delay > 0) == (verb == "retry")
    assert [attempt.outcome for attempt in history(outcome.job)] == [AttemptOutcome.TIMED_OUT]


@task(ignore_on=JobTimeout)
def do_and_ignore_timeouts(body: str) -> Any:
    return do.func(body)


def test_a_task_may_say_that_timeouts_are_not_retried(threads: Threads, clock: StillClock) -> None:
    assert timed_out(threads, clock, wait_at, do_and_ignore_timeouts).verb == "fail"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("catches", [False, True])
def test_what_an_atomic_job_wrote_is_rolled_back(threads: Threads, clock: StillClock, catches: bool) -> None:
    def body(gate: Gate) -> None:
        Group.objects.create(name="written")
        try:
            gate()
        except JobTimeout:
            if not catches:
                raise

    outcome = timed_out(threads, clock, body, do_atomically)

    assert (outcome.verb, outcome.is_written, type(outcome.exception)) == ("retry", False, JobTimeout)
    assert not Group.objects.exists()


def test_limits_that_pass_at_any_moment_leave_every_thread_alive_and_every_outcome_told() -> None:
    threads = Threads(2)
    threads.deadlines.start()
    try:
        jobs: list[ClaimedJob] = [
            claimed_job(do.using(timeout=0.00001 * (number % 20 + 1)), doing(lambda: sum(range(200))))
            for number in range(200)
        ]
        for job in jobs:
            threads.executor.submit(job)

        outcomes = [threads.outcome() for _ in jobs]

        assert {outcome.job.id for outcome in outcomes} == {job.id for job in jobs}
        assert {outcome.verb for outcome in outcomes} <= {"succeed", "retry"}
        assert {type(outcome.exception) for outcome in outcomes} <= {type(None), JobTimeout}
        assert threads.executor.is_alive
        assert threads.deadlines._deadlines == {}
    finally:
        threads.end()
        threads.deadlines.stop()
