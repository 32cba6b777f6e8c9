"""Jobs of ``async def`` tasks on the event loop: side by side, interrupted, and each in a context of its own."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from django_jobs import current_job
from django_jobs.context import ignore_progress
from django_jobs.exceptions import JobCancelled
from django_jobs.models import Job
from django_jobs.outcomes import ClaimedJob
from django_jobs.worker import sessions
from django_jobs.worker.deadlines import Deadlines
from django_jobs.worker.execution import make_runner
from django_jobs.worker.executors.event_loop import LoopExecutor
from django_jobs.worker.middleware import Factory

from .attempts import claimed_job
from .clocks import Clock
from .conftest import wait_until
from .executors import TIMEOUT, AsyncGate, Loop
from .worker_tasks import do_async, doing

pytestmark = pytest.mark.django_db

variable: ContextVar[str] = ContextVar("variable", default="untouched")
Body = Callable[..., Awaitable[Any]]


@pytest.fixture
def start_loop() -> Iterator[Callable[..., Loop]]:
    started: list[Loop] = []

    def start(*factories: Factory) -> Loop:
        started.append(Loop(factories))
        return started[-1]

    yield start
    for loop in started:
        loop.end()


@pytest.fixture
def loop(start_loop: Callable[..., Loop]) -> Loop:
    return start_loop()


async def nothing() -> None:
    """Do nothing."""


# Running


def test_a_coroutine_runs_and_its_outcome_is_told(loop: Loop) -> None:
    async def body() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    job = loop.begin(body)

    outcome = loop.outcome()
    assert (outcome.job, outcome.verb, outcome.result) == (job, "succeed", "django_jobs event loop")


def test_many_jobs_run_side_by_side(loop: Loop) -> None:
    gates = [AsyncGate() for _ in range(50)]
    jobs = [loop.begin(gate) for gate in gates]
    for gate in gates:
        gate.wait()

    for gate in reversed(gates):
        gate.open()

    assert [loop.outcome().job for _ in jobs] == jobs[::-1]


def test_a_job_that_raises_leaves_the_others_alone(loop: Loop) -> None:
    gate = AsyncGate()
    job = loop.begin(gate)
    gate.wait()

    async def body() -> None:
        raise ValueError("no")

    failed = loop.run(body)

    gate.open()
    assert (failed.verb, failed.failure.message) == ("retry", "no")
    assert (loop.outcome().job, loop.executor.is_alive) == (job, True)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_what_would_end_the_loop_fails_the_job_only(loop: Loop, error: type[BaseException]) -> None:
    async def body() -> None:
        raise error("stop")

    outcome = loop.run(body)

    assert (outcome.verb, outcome.failure.message) == ("retry", "stop")
    assert loop.run(nothing).verb == "succeed"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_a_coroutine_of_a_job_raises_to_end_the_loop_fails_the_job_only(
    loop: Loop, error: type[BaseException]
) -> None:
    async def child() -> None:
        raise error("stop")

    async def body() -> None:
        await asyncio.create_task(child())

    outcome = loop.run(body)

    assert (outcome.verb, outcome.failure.message) == ("retry", "stop")
    assert loop.run(nothing).verb == "succeed"
    assert loop.deaths.empty()


# Each job in a context of its own


def test_context_variables_of_a_job_are_not_seen_by_others(loop: Loop) -> None:
    async def set_it() -> None:
        variable.set("left behind")

    async def get_it() -> str:
        return variable.get()

    loop.run(set_it)

    assert loop.run(get_it).result == "untouched"


def test_each_of_two_jobs_side_by_side_knows_which_it_is(loop: Loop) -> None:
    gates = [AsyncGate(), AsyncGate()]

    def body_for(gate: AsyncGate) -> Body:
        async def body() -> int | None:
            await gate()
            job = current_job()
            return job and job.job_id

        return body

    jobs = [loop.begin(body_for(gate)) for gate in gates]
    for gate in gates:
        gate.wait()
    for gate in gates:
        gate.open()

    told = {outcome.job.id: outcome.result for outcome in (loop.outcome(), loop.outcome())}
    assert told == {job.id: job.id for job in jobs}


# Synchronous code


@pytest.mark.django_db(transaction=True)
def test_jobs_use_the_database_over_one_connection(loop: Loop) -> None:
    async def body() -> tuple[int, int]:
        return await Job.objects.acount(), await sync_to_async(lambda: id(connection.connection))()

    results = [loop.run(body).result for _ in range(3)]

    assert [count for count, _ in results] == [1, 2, 3]
    assert len({session for _, session in results}) == 1


def test_a_plain_middleware_of_one_job_does_not_hold_up_another(start_loop: Callable[..., Loop]) -> None:
    def factory(call: Any) -> Any:
        def run(job: ClaimedJob) -> Any:
            return call(job)

        return run

    loop = start_loop(factory)
    first, second = AsyncGate(), AsyncGate()
    loop.begin(first)
    first.wait()
    other = loop.begin(second)
    second.wait()

    second.open()
    assert loop.outcome().job == other
    first.open()
    assert loop.outcome().verb == "succeed"


def test_synchronous_code_of_one_job_that_takes_long_keeps_no_other_from_its_beginning_or_its_end(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, sessions)
    with loop.busy_thread():
        # So long that the connections would be checked before the next job.
        clock.advance(sessions.CHECK_AFTER_IDLE)
        job = loop.begin(nothing)

        assert loop.outcome().job == job


# The end


def test_jobs_that_still_run_at_the_end_are_given_back(loop: Loop) -> None:
    gate = AsyncGate()
    job = loop.begin(gate)
    gate.wait()

    loop.executor.stop()

    outcome = loop.outcome()
    assert (outcome.job, outcome.verb) == (job, "release")
    wait_until(lambda: not loop.executor.is_alive)
    assert loop.deaths.empty()


def test_a_loop_may_be_stopped_at_once_and_twice(start_loop: Callable[..., Loop]) -> None:
    loop = start_loop()

    loop.executor.stop()
    loop.executor.stop()

    wait_until(lambda: not loop.executor.is_alive)
    loop.executor.interrupt({1}, JobCancelled)
    assert loop.deaths.empty()


def test_an_executor_that_was_never_started_leaves_nothing_open() -> None:
    LoopExecutor(1, make_runner([], ignore_progress), print, print, Deadlines())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_dies_is_told_and_can_be_stopped_all_the_same(
    start_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setitem(connections.settings, "broken", {"ENGINE": "no.such.engine"})
        loop = start_loop()

        assert loop.deaths.get(timeout=TIMEOUT) is loop.executor

    wait_until(lambda: not loop.executor.is_alive)
    loop.executor.stop()


def test_what_a_failed_job_held_is_let_go_of_with_its_outcome(loop: Loop) -> None:
    class Large:
        """What takes much memory."""

    held: list[weakref.ref[Large]] = []

    async def body() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no")

    gc.disable()
    try:
        loop.run(body)
        loop.run(nothing)

        assert held[0]() is None
    finally:
        gc.enable()


def test_two_attempts_of_one_job_may_end_in_any_order(loop: Loop) -> None:
    # As when the first was taken from the worker while it ran on.
    first, second = AsyncGate(), AsyncGate()
    job = loop.begin(first)
    first.wait()
    again = claimed_job(do_async, doing(second))._replace(id=job.id, attempt=2)
    loop.executor.submit(again)
    second.wait()

    second.open()
    ended = [loop.outcome().job]
    first.open()
    ended.append(loop.outcome().job)

    assert ended == [again, job]


def test_what_follows_the_last_job_is_done_before_the_end(
    start_loop: Callable[..., Loop], caplog: pytest.LogCaptureFixture
) -> None:
    def plain(call: Any) -> Any:
        return lambda job: call(job)

    for _ in range(20):
        loop = start_loop(plain)
        loop.run(nothing)
        loop.end()
        assert not loop.executor.is_alive
    gc.collect()

    assert "was destroyed" not in caplog.text
