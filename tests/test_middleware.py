"""The chain of middleware around jobs: its order, and what happens when a part of it fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import PermissionDenied

from django_jobs import current_job
from django_jobs.exceptions import Cancel, InvalidOption, Retry, Snooze
from django_jobs.models import Job
from django_jobs.outcomes import ClaimedJob
from django_jobs.states import JobState
from django_jobs.worker.middleware import build_async_chain, build_chain, load_factories

from .attempts import claimed_job, history, run, run_async
from .rows import row, write
from .worker_tasks import do, do_async, doing, raising, returning

pytestmark = pytest.mark.django_db

Call = Callable[[ClaimedJob], Any]
seen: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def noting(name: str) -> Callable[[Call], Call]:
    """Return a middleware that notes when it is entered and left."""

    def factory(call: Call) -> Call:
        def middleware(job: ClaimedJob) -> Any:
            seen.append(f"{name} in")
            try:
                return call(job)
            finally:
                seen.append(f"{name} out")

        return middleware

    return factory


outer, inner = noting("outer"), noting("inner")


def raising_middleware(error: BaseException) -> Callable[[Call], Call]:
    def factory(call: Call) -> Call:
        def middleware(job: ClaimedJob) -> Any:
            raise error

        return middleware

    return factory


def both_ways(call: Any) -> Any:
    """Note the job, as a middleware that is made for plain and asynchronous tasks."""
    if iscoroutinefunction(call):

        async def arun(job: ClaimedJob) -> Any:
            seen.append(("async", job.task_path))
            return await call(job)

        return arun

    def run(job: ClaimedJob) -> Any:
        seen.append(("plain", job.task_path))
        return call(job)

    return run


only_async_marker = object()


def only_async(call: Callable[[ClaimedJob], Awaitable[Any]]) -> Callable[[ClaimedJob], Awaitable[Any]]:
    async def run(job: ClaimedJob) -> Any:
        return await call(job)

    return run


def of_no_use(call: Call) -> None:
    """Answer with no callable."""


# The order


def test_the_first_middleware_of_the_setting_is_the_outermost(settings: Any) -> None:
    settings.DJANGO_JOBS = {"MIDDLEWARE": ["tests.test_middleware.outer", "tests.test_middleware.inner"]}

    outcome = run(claimed_job(do, doing(lambda: seen.append("job"))), load_factories())

    assert seen == ["outer in", "inner in", "job", "inner out", "outer out"]
    assert outcome.verb == "succeed"


def test_without_middleware_the_task_is_called() -> None:
    assert load_factories() == []
    assert run(claimed_job(do, returning(3))).result == 3


def test_middleware_sees_the_job_and_its_context_and_may_change_the_result() -> None:
    def factory(call: Call) -> Call:
        def middleware(job: ClaimedJob) -> Any:
            context = current_job()
            seen.append((job.id, job.task_path, job.attempt, context and context.job_id))
            return [call(job), "changed"]

        return middleware

    job = claimed_job(do, returning("mine"))
    outcome = run(job, [factory])

    assert seen == [(job.id, "tests.worker_tasks.do", 1, job.id)]
    assert outcome.result == ["mine", "changed"]


def test_middleware_sees_what_the_job_raises_and_may_hold_it_back() -> None:
    def factory(call: Call) -> Call:
        def middleware(job: ClaimedJob) -> Any:
            try:
                return call(job)
            except KeyError as error:
                return f"held back {error}"

        return middleware

    outcome = run(claimed_job(do, raising(KeyError("a"))), [factory])

    assert (outcome.verb, outcome.result) == ("succeed", "held back 'a'")


# Middleware that raises


@pytest.mark.parametrize("error", [PermissionDenied("no"), SystemExit("no"), KeyboardInterrupt("no")])
def test_a_middleware_that_raises_fails_the_attempt(error: BaseException) -> None:
    job = claimed_job(do, doing(lambda: seen.append("job")))

    write(run(job, [raising_middleware(error)]))

    assert seen == []
    assert row(job.id).state == JobState.SCHEDULED
    assert history(job)[0].message == "no"


def test_a_middleware_that_raises_in_every_attempt_fails_the_job() -> None:
    job = claimed_job(do.using(max_attempts=1), doing(lambda: None))

    write(run(job, [raising_middleware(ValueError("always"))]))

    assert row(job.id).state == JobState.FAILED
    assert "raise error" in history(job)[0].traceback


@pytest.mark.parametrize(("answer", "verb"), [(Cancel(), "cancel"), (Snooze(60), "snooze"), (Retry(5), "retry")])
def test_a_middleware_may_answer_for_the_job(answer: Exception, verb: str) -> None:
    assert run(claimed_job(do, doing(lambda: None)), [raising_middleware(answer)]).verb == verb


def test_a_middleware_that_raises_after_the_job_fails_the_attempt() -> None:
    def factory(call: Call) -> Call:
        def middleware(job: ClaimedJob) -> Any:
            call(job)
            raise ValueError("afterwards")

        return middleware

    outcome = run(claimed_job(do, doing(lambda: seen.append("job"))), [factory])

    assert seen == ["job"]
    assert (outcome.verb, outcome.failure.message) == ("retry", "afterwards")


# Middleware that cannot work


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("tests.test_middleware.missing", "which cannot be imported: Module .* does not define"),
        ("tests.no_such_module.factory", "which cannot be imported: No module named"),
        ("nonsense", "which cannot be imported: nonsense doesn't look like a module path"),
        ("tests.test_middleware.only_async_marker", "which is not callable"),
    ],
)
def test_a_middleware_that_cannot_be_had_is_refused_by_its_name(settings: Any, path: str, problem: str) -> None:
    settings.DJANGO_JOBS = {"MIDDLEWARE": [path]}

    with pytest.raises(InvalidOption, match=f"'{path}', {problem}"):
        load_factories()


def test_a_factory_that_answers_with_no_callable_is_refused() -> None:
    with pytest.raises(InvalidOption, match="of_no_use.* must return a callable, not None"):
        build_chain([of_no_use], lambda job: None)


def test_a_factory_that_answers_a_plain_call_with_a_coroutine_function_is_refused() -> None:
    with pytest.raises(InvalidOption, match="only_async.* must return a plain function"):
        build_chain([only_async], lambda job: None)


# Asynchronous tasks


def test_an_asynchronous_middleware_is_awaited_around_an_asynchronous_task() -> None:
    async def body() -> str:
        await asyncio.sleep(0)
        return "done"

    outcome = run_async(claimed_job(do_async, doing(body)), [both_ways])

    assert (outcome.verb, outcome.result) == ("succeed", "done")
    assert seen == [("async", "tests.worker_tasks.do_async")]


def test_a_middleware_may_be_an_object_that_is_called_as_a_coroutine_function() -> None:
    class Middleware:
        def __init__(self, call: Any) -> None:
            self._call = call

        async def __call__(self, job: ClaimedJob) -> Any:
            return [await self._call(job), "through the object"]

    async def body() -> str:
        return "done"

    def factory(call: Any) -> Any:
        return Middleware(call) if iscoroutinefunction(call) else call

    outcome = run_async(claimed_job(do_async, doing(body)), [factory])

    assert outcome.result == ["done", "through the object"]


def test_one_middleware_serves_both_kinds_of_tasks() -> None:
    outcome = run(claimed_job(do, returning("done")), [both_ways])

    assert outcome.result == "done"
    assert seen == [("plain", "tests.worker_tasks.do")]


def test_a_plain_middleware_runs_around_an_asynchronous_task() -> None:
    async def body() -> str:
        seen.append("job")
        return "done"

    outcome = run_async(claimed_job(do_async, doing(body)), [outer, both_ways, inner])

    assert (outcome.verb, outcome.result) == ("succeed", "done")
    assert seen == ["outer in", ("async", "tests.worker_tasks.do_async"), "inner in", "job", "inner out", "outer out"]


def test_a_plain_middleware_does_not_hold_up_the_event_loop() -> None:
    threads: list[int] = []

    def factory(call: Call) -> Call:
        def middleware(job: ClaimedJob) -> Any:
            threads.append(threading.get_ident())
            return call(job)

        return middleware

    async def body() -> None:
        threads.append(threading.get_ident())

    run_async(claimed_job(do_async, doing(body)), [factory])

    assert len(set(threads)) == 2


@pytest.mark.parametrize("factory", [raising_middleware(ValueError("no")), outer])
def test_what_is_raised_around_an_asynchronous_task_fails_the_attempt(factory: Any) -> None:
    async def body() -> None:
        raise ValueError("no")

    outcome = run_async(claimed_job(do_async, doing(body)), [factory])

    assert (outcome.verb, outcome.failure.message) == ("retry", "no")


def test_the_chain_for_asynchronous_tasks_refuses_a_factory_without_an_answer() -> None:
    async def innermost(job: ClaimedJob) -> None:
        """Do nothing."""

    with pytest.raises(InvalidOption, match="must return a callable"):
        build_async_chain([of_no_use], innermost)


def test_a_plain_middleware_of_an_asynchronous_task_uses_the_database() -> None:
    def factory(call: Call) -> Call:
        def middleware(job: ClaimedJob) -> Any:
            seen.append(Job.objects.filter(pk=job.id).exists())
            return call(job)

        return middleware

    async def body() -> int:
        return await Job.objects.acount()

    outcome = run_async(claimed_job(do_async, doing(body)), [factory])

    assert (seen, outcome.result) == ([True], 1)
