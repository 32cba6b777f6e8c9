"""The context of a running job: what it makes when it is asked, and that it cannot be set."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs import current_job
from django_jobs.context import JobContext
from django_jobs.states import JobState
from django_jobs.worker import execution

from .attempts import claimed_job, ended, run, run_async, tried_again
from .rows import row
from .worker_tasks import (
    choose_backoff,
    do,
    do_async_with_context,
    do_with_chosen_backoff,
    do_with_context,
    doing,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the jobs whose result was made, once for each time."""
    ids: list[int] = []
    make = execution.result_of_running

    def counted(job: Any, **changes: Any) -> Any:
        ids.append(job.id)
        return make(job, **changes)

    monkeypatch.setattr(execution, "result_of_running", counted)
    return ids


@pytest.fixture
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no receiver ask for the result; Django has some of its own."""
    monkeypatch.setattr(execution.signals, "is_heard", lambda *told, **arguments: False)


@pytest.mark.usefixtures("nobody_listens")
def test_the_result_of_a_running_job_is_made_when_it_is_asked_for_and_once(made: list[int]) -> None:
    results: list[Any] = []

    def body(context: JobContext) -> None:
        results.extend([context.task_result, context.task_result, current_job().task_result])  # type: ignore[union-attr]

    silent = claimed_job(do, doing(lambda: current_job().attempt))  # type: ignore[union-attr]
    outcome = run(silent)
    asking = claimed_job(do_with_context, doing(body))
    run(asking)

    assert outcome.result == 1
    assert made == [asking.id]
    assert results[0] is results[1] is results[2]


def test_a_plain_and_an_async_job_see_what_their_row_says() -> None:
    seen: list[Any] = []

    async def abody(context: JobContext) -> None:
        seen.append((context.job_id, context.task_result))

    plain = claimed_job(do_with_context, doing(lambda context: seen.append((context.job_id, context.task_result))))
    run(plain)
    coroutine = claimed_job(do_async_with_context, doing(abody))
    run_async(coroutine)

    for job, (job_id, result) in zip((plain, coroutine), seen, strict=True):
        stored = row(job.id)
        assert (job_id, result.id) == (job.id, str(job.id))
        assert (result.enqueued_at, result.args, result.kwargs) == (stored.enqueued_at, stored.args, stored.kwargs)
        assert (result.status.name, result.attempts, result.worker_ids) == ("RUNNING", 1, ["w1"])
        assert (result.errors, result.finished_at) == ([], None)


def test_a_backoff_is_asked_with_the_result_that_the_job_has_seen() -> None:
    asked: list[Any] = []

    def backoff(error: BaseException, task_result: Any) -> float:
        asked.append((task_result, task_result.attempts, len(task_result.errors), task_result.worker_ids))
        return 0.0

    def body() -> None:
        asked.append(current_job().task_result)  # type: ignore[union-attr]
        raise ValueError("as the test wants it")

    choose_backoff(backoff)
    job = tried_again(ended(do_with_chosen_backoff, doing(body)).pk)

    first_seen, first, second_seen, second = asked
    assert (first_seen is first[0], second_seen is second[0]) == (True, True)
    assert [first[1:], second[1:]] == [(1, 0, ["w1"]), (2, 1, ["w1", "w1"])]
    assert job.state == JobState.SCHEDULED


@pytest.mark.parametrize(
    "name", ["job_id", "attempt", "number", "task_result", "meta", "report", "_result", "anything"]
)
def test_nothing_of_a_context_can_be_set(name: str) -> None:
    context = JobContext(task_result=None, job_id=1, number=1)

    with pytest.raises(AttributeError, match=rf"read-only: {name} cannot be set. What to keep goes into meta."):
        setattr(context, name, 7)


def test_a_context_shows_itself_without_an_error() -> None:
    shown: list[str] = []

    run(claimed_job(do_with_context, doing(lambda context: shown.append(repr(context)))))

    assert "task_result=" in shown[0]
