"""Interrupts of jobs on the event loop: whom they reach, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from django_jobs.context import JobContext
from django_jobs.exceptions import JobCancelled, JobInterrupted
from django_jobs.worker.middleware import Factory

from .executors import TIMEOUT, AsyncGate, Loop
from .worker_tasks import do_async_with_context

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


# Interrupts


@pytest.mark.parametrize(("reason", "verb"), [(JobCancelled, "cancel"), (JobInterrupted, "release")])
def test_a_running_job_is_stopped_where_it_waits(loop: Loop, reason: Any, verb: str) -> None:
    gate, spared = AsyncGate(), AsyncGate()
    job, other = loop.begin(gate), loop.begin(spared)
    gate.wait()
    spared.wait()

    loop.executor.interrupt({job.id}, reason)

    outcome = loop.outcome()
    spared.open()
    assert (outcome.job, outcome.verb) == (job, verb)
    assert (loop.outcome().job, loop.outcomes.empty()) == (other, True)


def test_a_job_that_is_interrupted_before_its_first_step_never_begins(loop: Loop) -> None:
    blocked, unblock = threading.Event(), threading.Event()
    begun: list[int] = []

    async def block_the_loop() -> None:
        blocked.set()
        unblock.wait(TIMEOUT)

    async def body() -> None:
        begun.append(1)

    loop.begin(block_the_loop)
    assert blocked.wait(TIMEOUT)
    job = loop.begin(body)
    loop.executor.interrupt({job.id}, JobCancelled)
    unblock.set()

    outcomes = {loop.outcome().verb, loop.outcome().verb}
    assert outcomes == {"succeed", "cancel"}
    assert begun == []


def test_an_interrupt_after_the_end_changes_nothing(loop: Loop) -> None:
    job = loop.begin(nothing)
    assert loop.outcome().verb == "succeed"

    loop.executor.interrupt({job.id}, JobCancelled)

    assert loop.run(nothing).verb == "succeed"
    assert loop.outcomes.empty()


def test_an_interrupt_after_a_jobs_return_leaves_its_outcome_as_it_is(loop: Loop) -> None:
    with loop.busy_thread():
        job = loop.begin(nothing)
        outcome = loop.outcome()

        loop.executor.interrupt({job.id}, JobCancelled)

    assert (outcome.job, outcome.verb) == (job, "succeed")
    assert loop.outcome().job != job
    assert loop.outcomes.empty()


def test_a_job_that_swallows_its_cancellation_ends_in_its_own_way(loop: Loop) -> None:
    gate = AsyncGate()

    async def body() -> str:
        try:
            await gate()
        except asyncio.CancelledError:
            return "stopped by myself"
        return "not stopped"

    job = loop.begin(body)
    gate.wait()
    loop.executor.interrupt({job.id}, JobCancelled)

    assert loop.outcome().result == "stopped by myself"


def test_a_job_that_cancels_itself_fails(loop: Loop) -> None:
    async def body() -> None:
        raise asyncio.CancelledError

    assert loop.run(body).verb == "retry"


def test_a_job_can_ask_whether_it_should_stop(loop: Loop) -> None:
    gate = AsyncGate()

    async def body(context: JobContext) -> None:
        try:
            await gate()
        except asyncio.CancelledError:
            context.check()

    job = loop.begin(body, do_async_with_context)
    gate.wait()
    loop.executor.interrupt({job.id}, JobInterrupted)

    assert loop.outcome().verb == "release"
