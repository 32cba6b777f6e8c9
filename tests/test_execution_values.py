"""What goes into a job and what it leaves behind: context, result, meta, and the text of its errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from django_jobs import current_job
from django_jobs.context import JobContext, Progress
from django_jobs.exceptions import InvalidArgument
from django_jobs.models import Job
from django_jobs.states import JobState

from .attempts import claimed_job, ended, history, run, tried_again
from .rows import row, write
from .worker_tasks import do, do_once, do_with_context, doing, raising, returning

pytestmark = pytest.mark.django_db


class BrokenList(Sequence[int]):
    """A list that cannot be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        raise OSError("the file behind the list is gone")


class BrokenDict(Mapping[str, int]):
    """A dict that cannot be read, and ends the process of whoever tries."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter("a")

    def __getitem__(self, key: str) -> int:
        raise SystemExit("never")


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("which of the elements?")

    def __hash__(self) -> int:
        return 1


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


# Results


@pytest.mark.parametrize("value", [0, "", [], {}, False, [1, {"a": [None, 1.5, "ä\U0001f600"]}]])
def test_a_result_is_kept_as_it_is(value: Any) -> None:
    job = ended(do, returning(value))

    assert (job.state, job.result.value) == (JobState.SUCCEEDED, value)


def test_a_result_is_kept_as_json_holds_it() -> None:
    job = ended(do, returning({"pair": (1, 2), "bytes": b"text", 3: range(2)}))

    assert job.result.value == {"pair": [1, 2], "bytes": "text", "3": [0, 1]}


UNSTORABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "a datetime": (lambda: datetime(2026, 1, 1, tzinfo=UTC), "Unsupported type: <class 'datetime.datetime'>"),
    "a set inside": (lambda: {"a": {1, 2}}, "Unsupported type: <class 'set'>"),
    "a class": (lambda: object, "Unsupported type"),
    "not a number": (lambda: [float("nan")], "nan is not a JSON number"),
    "infinity": (lambda: float("-inf"), "-inf is not a JSON number"),
    "a NUL": (lambda: "a\x00b", "it contains a NUL character"),
    "a NUL in a key": (lambda: {"a\x00b": 1}, "it contains a NUL character"),
    "a surrogate": (lambda: "a\ud800b", "it contains a lone surrogate"),
    "bytes that are no text": (lambda: b"\xff", "Unsupported value: <class 'bytes'>"),
    "a key that is a list": (lambda: {(1, 2): 3}, "unhashable type"),
    "too many levels": (lambda: nested(100_000), "it is nested too deeply"),
    "too many digits": (lambda: 10**5000, "Exceeds the limit"),
    "a list that raises": (BrokenList, "the file behind the list is gone"),
    "a dict that exits": (BrokenDict, "never"),
}


@pytest.mark.parametrize(("make", "reason"), UNSTORABLE.values(), ids=UNSTORABLE)
def test_a_result_that_json_cannot_hold_fails_the_job_once(make: Callable[[], Any], reason: str) -> None:
    job = ended(do, doing(make))

    assert (job.state, job.attempt, job.max_attempts) == (JobState.FAILED, 1, 3)
    assert "The return value of tests.worker_tasks.do cannot be stored as JSON" in history(job)[0].message
    assert reason in history(job)[0].message
    assert "The job is not run again: it would return the same." in history(job)[0].message


def test_a_result_that_is_too_large_fails_the_job_once(settings: Any) -> None:
    settings.DJANGO_JOBS = {"MAX_RESULT_BYTES": 1000}

    job = ended(do, returning("a" * 999))

    assert job.state == JobState.FAILED
    assert "takes 1,001 bytes as JSON, more than MAX_RESULT_BYTES (1,000)" in history(job)[0].message


def test_a_result_of_exactly_the_largest_size_is_kept(settings: Any) -> None:
    settings.DJANGO_JOBS = {"MAX_RESULT_BYTES": 1000}

    job = ended(do, returning("a" * 998))

    assert job.state == JobState.SUCCEEDED


# Errors as text


class BrokenText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class DeadlyText(Exception):
    def __str__(self) -> str:
        raise SystemExit


class NoText(Exception):
    def __str__(self) -> Any:
        return None  # noqa: PLE0307


@pytest.mark.parametrize("error", [BrokenText, DeadlyText, NoText])
def test_an_error_whose_text_cannot_be_had_is_kept_all_the_same(error: type[Exception]) -> None:
    job = ended(do_once, raising(error))

    past = history(job)[0]
    assert job.state == JobState.FAILED
    assert past.exception_class == f"tests.test_execution_values.{error.__name__}"
    assert "str() of the exception raised" in past.message
    assert "in body" in past.traceback


def test_the_text_of_an_error_is_kept_without_what_databases_refuse() -> None:
    job = ended(do_once, raising(ValueError("nul \x00 surrogate \udc80 end")))

    assert history(job)[0].message == "nul \ufffd surrogate ? end"
    assert "nul \ufffd surrogate ? end" in history(job)[0].traceback


def test_the_text_of_an_error_is_cut() -> None:
    job = ended(do_once, raising(ValueError("x" * 5_000_000 + "the end")))

    past = history(job)[0]
    assert len(past.message) == 10_000
    assert len(past.traceback) <= 50_000
    assert past.traceback.startswith("[... cut ...]")
    assert past.traceback.rstrip().endswith("the end")


# Meta


def test_meta_that_a_job_changes_is_saved_with_its_outcome() -> None:
    def body(context: JobContext) -> None:
        context.meta["rows"] = 3

    job = ended(do_with_context.using(meta={"team": "sales"}), doing(body))

    assert job.meta == {"team": "sales", "rows": 3}


def test_meta_is_saved_also_when_the_job_fails_and_the_next_attempt_sees_it() -> None:
    seen: list[Any] = []

    def body(context: JobContext) -> None:
        seen.append(dict(context.meta))
        context.meta["page"] = context.meta.get("page", 0) + 1
        raise ValueError

    job = tried_again(ended(do_with_context, doing(body)).pk)

    assert seen == [{}, {"page": 1}]
    assert job.meta == {"page": 2}


@pytest.mark.parametrize("make", [*(make for make, _ in UNSTORABLE.values()), Incomparable], ids=[*UNSTORABLE, "no =="])
def test_meta_that_cannot_be_stored_is_left_out_and_the_job_succeeds(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    def body(context: JobContext) -> str:
        context.meta["team"] = make()
        return "done"

    job = ended(do_with_context.using(meta={"team": "sales"}), doing(body))

    assert (job.state, job.result.value, job.meta) == (JobState.SUCCEEDED, "done", {"team": "sales"})
    assert "its meta is not saved" in caplog.text


# Context


def test_a_task_that_takes_the_context_gets_it_first() -> None:
    seen: list[JobContext] = []

    job = ended(do_with_context, doing(seen.append))

    assert [(context.job_id, context.attempt, context.task_result.id) for context in seen] == [(job.pk, 1, str(job.pk))]


def test_a_task_finds_its_context_without_taking_it() -> None:
    seen: list[JobContext | None] = []

    job = ended(do, doing(lambda: seen.append(current_job())))

    assert [context and context.job_id for context in seen] == [job.pk]
    assert current_job() is None


def test_the_context_knows_the_earlier_attempts() -> None:
    seen: list[Any] = []

    def body(context: JobContext) -> None:
        result = context.task_result
        seen.append((context.attempt, result.attempts, result.worker_ids, [e.exception_class for e in result.errors]))
        raise ValueError

    tried_again(ended(do_with_context, doing(body)).pk)

    assert seen == [(1, 1, ["w1"], []), (2, 2, ["w1", "w1"], [ValueError])]


def test_the_context_knows_the_options_that_the_job_was_enqueued_with() -> None:
    seen: list[JobContext] = []

    ended(do_with_context.using(priority=7, queue_name="urgent"), doing(seen.append))

    task = seen[0].task_result.task
    assert (task.priority, task.queue_name, task.func) == (7, "urgent", do_with_context.func)


def test_progress_is_reported_with_numbers_and_a_clean_text() -> None:
    reported: list[tuple[int, Progress]] = []

    def body(context: JobContext) -> None:
        context.progress(3, 10, "row \x00 \udc80 " + "x" * 1000)

    job = claimed_job(do_with_context, doing(body))
    run(job, report=lambda *told: reported.append(told))

    assert reported == [(job.id, {"done": 3, "total": 10, "message": ("row \ufffd ? " + "x" * 1000)[:500]})]


NO_PROGRESS: dict[str, tuple[Any, ...]] = {
    "a text": ("3",),
    "a text as total": (1, "10"),
    "a truth value": (True,),
    "not a number": (float("nan"),),
    "an infinite total": (1, float("inf")),
    "too many digits": (1 << 20_000,),
    "a complex number": (1j,),
    "nothing done": (None,),
}


@pytest.mark.parametrize("name", NO_PROGRESS)
def test_progress_that_cannot_be_stored_is_refused_where_it_is_told(name: str) -> None:
    def body(context: JobContext) -> None:
        context.progress(*NO_PROGRESS[name])

    outcome = run(claimed_job(do_with_context, doing(body)))

    assert isinstance(outcome.exception, InvalidArgument)
    assert "must be a finite number, not a " in outcome.failure.message


def test_outcomes_of_one_worker_do_not_share_their_meta() -> None:
    def body(context: JobContext) -> None:
        context.meta["mine"] = context.job_id

    body_name = doing(body)
    outcomes = [run(claimed_job(do_with_context, body_name)) for _ in range(2)]
    write(*outcomes)

    assert [row(outcome.job.id).meta for outcome in outcomes] == [{"mine": outcome.job.id} for outcome in outcomes]
    assert json.dumps(Job.objects.get(pk=outcomes[0].job.id).args) == json.dumps([body_name])
