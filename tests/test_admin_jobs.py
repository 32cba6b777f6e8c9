"""Jobs in the admin: the list, its filters and search, and the page of one job."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.admin import attempt, display, paging
from django_jobs.models import Attempt, Job, Queue, Result
from django_jobs.outcomes import Failure
from django_jobs.states import JobState

from .rows import WORKER, claimed, job_in, outcome, start_worker, write
from .visitor import JOBS, rows_of, superuser, text_of

SCRIPT = "<script>alert(1)</script>"


def stored(**columns: Any) -> Job:
    """Return a job as somebody wrote it past every check."""
    return Job.objects.create(**{"task_path": "tests.tasks.noop", **columns})


def listed(response: Any) -> list[str]:
    return [cells[0] for cells in rows_of(response)]


# The list


@pytest.mark.django_db
@pytest.mark.parametrize("state", JobState)
def test_the_list_shows_a_job_in_each_state(state: JobState) -> None:
    job = job_in(state, priority=7)

    cells = rows_of(superuser().get(JOBS))[0]

    assert cells[0] == str(job.pk)
    assert cells[1].startswith(str(state.label))
    assert cells[2:6] == ["tests.tasks.noop", job.queue_name, "7", f"{job.attempt}/3"]
    assert cells[6] == f"{job.enqueued_at:%Y-%m-%d %H:%M:%S}"
    assert cells[7] == (f"{job.finished_at:%Y-%m-%d %H:%M:%S}" if job.finished_at else "-")
    assert cells[8] == (job.worker_id or "-")


@pytest.mark.django_db
def test_the_newest_job_comes_first_whatever_order_the_address_asks_for() -> None:
    first, second = stored(priority=9), stored(priority=1)

    response = superuser().get(JOBS, {"o": "-5.1"})

    assert listed(response) == [str(second.pk), str(first.pk)]


@pytest.mark.django_db
def test_more_jobs_take_no_more_queries() -> None:
    browser = superuser()
    job_in(JobState.RUNNING)
    with CaptureQueriesContext(connection) as few:
        browser.get(JOBS)
    for state in JobState:
        job_in(state)
        job_in(state)

    with CaptureQueriesContext(connection) as many:
        browser.get(JOBS)

    assert len(many) == len(few)


@pytest.mark.django_db
def test_the_list_counts_up_to_a_limit_and_never_looks_for_distinct_values() -> None:
    browser = superuser()
    stored()

    with CaptureQueriesContext(connection) as captured:
        browser.get(JOBS, {"state__exact": "ready"})

    on_jobs = [query["sql"] for query in captured.captured_queries if "django_jobs_job" in query["sql"]]
    counts = [sql for sql in on_jobs if "COUNT(" in sql]
    assert len(counts) == 1
    assert f"LIMIT {paging.MOST_LISTED + 1}" in counts[0]
    assert not [sql for sql in on_jobs if "DISTINCT" in sql]


@pytest.mark.django_db
def test_the_list_reads_no_arguments() -> None:
    browser = superuser()
    stored(args=["x" * 1000])

    with CaptureQueriesContext(connection) as captured:
        browser.get(JOBS)

    assert not [query["sql"] for query in captured.captured_queries if '"args"' in query["sql"]]


@pytest.mark.django_db
def test_a_list_longer_than_the_limit_says_that_more_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MOST_LISTED", 3)
    for _ in range(4):
        stored()

    text = text_of(superuser().get(JOBS))

    assert "3 jobs More match than are listed." in text


@pytest.mark.django_db
def test_a_list_within_the_limit_does_not_say_that_more_match() -> None:
    stored()

    assert "More match" not in text_of(superuser().get(JOBS))


@pytest.mark.django_db
def test_a_state_says_since_when_and_when_next_by_the_clock_of_the_database() -> None:
    now = timezone.now()
    scheduled = stored(state=JobState.SCHEDULED, run_after=now + timedelta(hours=3, minutes=30, seconds=30))
    ready = stored(enqueued_at=now - timedelta(minutes=5, seconds=30))
    running = stored(state=JobState.RUNNING, last_attempted_at=now - timedelta(days=2, hours=3, minutes=30))

    notes = {cells[0]: cells[1] for cells in rows_of(superuser().get(JOBS))}

    assert notes[str(scheduled.pk)] == "scheduled in 3 h 30 min"
    assert re.fullmatch(r"ready for 5 min \d+ s", notes[str(ready.pk)])
    assert notes[str(running.pk)] == "running for 2 d 3 h"


# Filters


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wanted",
    [{"state__exact": "failed"}, {"queue_name": "mail"}, {"task_path": "tests.tasks.send_mail"}, {"worker_id": "w9"}],
)
def test_a_filter_leaves_the_jobs_that_it_names(wanted: dict[str, str]) -> None:
    Queue.objects.declare("mail")
    stored()
    job = stored(state="failed", queue_name="mail", task_path="tests.tasks.send_mail", worker_id="w9")

    response = superuser().get(JOBS, wanted)

    assert listed(response) == [str(job.pk)]


@pytest.mark.django_db
def test_a_queue_and_a_task_that_nobody_declares_can_be_filtered_by() -> None:
    stored()
    job = stored(queue_name="gone", task_path="gone.task")

    response = superuser().get(JOBS, {"queue_name": "gone", "task_path": "gone.task"})

    assert listed(response) == [str(job.pk)]


@pytest.mark.django_db
def test_jobs_can_be_filtered_by_when_they_finished() -> None:
    now = timezone.now()
    stored()
    stored(state=JobState.FAILED, finished_at=now - timedelta(hours=30))
    job = stored(state=JobState.FAILED, finished_at=now - timedelta(minutes=30))

    response = superuser().get(JOBS, {"finished": "day"})

    assert listed(response) == [str(job.pk)]


@pytest.mark.django_db
def test_the_filters_offer_the_declared_queues_and_tasks() -> None:
    Queue.objects.declare("a-quiet-queue")

    text = text_of(superuser().get(JOBS))

    assert "a-quiet-queue" in text
    assert "orders.receipt" in text


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query",
    [
        {"p": "9999"},
        {"p": "word"},
        {"state__exact": "no-state"},
        {"finished": "no-period"},
        {"no_column": "1"},
        {"id": "word"},
        {"queue_name": "a\x00b"},
        {"q": "a\x00b"},
        {"q": "²"},
        {"q": "x" * 5000},
        {"all": ""},
        {"before": "word"},
        {"before": "9" * 30},
        {"before": "0"},
        {"q": "9" * 5000},
    ],
)
def test_an_odd_address_leads_to_a_list(query: dict[str, str]) -> None:
    stored()

    response = superuser().get(JOBS, query, follow=True)

    assert response.status_code == 200


# Search


@pytest.mark.django_db
@pytest.mark.parametrize(
    "term", ["daily-report", " daily-report ", "send_MAIL", "tests.tasks.send_mail", "tests.tasks.send_m"]
)
def test_a_job_is_found_by_its_unique_key_and_its_task(term: str) -> None:
    stored()
    job = stored(task_path="tests.tasks.send_mail", unique_key="daily-report")

    response = superuser().get(JOBS, {"q": term})

    assert listed(response) == [str(job.pk)]


@pytest.mark.django_db
def test_a_job_is_found_by_its_id() -> None:
    job, _ = stored(), stored()

    response = superuser().get(JOBS, {"q": str(job.pk)})

    assert listed(response) == [str(job.pk)]


@pytest.mark.django_db
def test_a_page_says_how_long_a_job_keeps_its_unique_key() -> None:
    job = stored(unique_key="daily-report", unique_until=datetime(2040, 2, 3, 4, 5, 6, tzinfo=UTC))

    text = text_of(superuser().get(f"{JOBS}{job.pk}/change/"))

    assert "2040-02-03 04:05:06" in text


@pytest.mark.django_db
def test_a_number_that_is_no_id_is_looked_for_as_a_unique_key() -> None:
    job = stored(unique_key="99999999999999999999999")

    response = superuser().get(JOBS, {"q": "99999999999999999999999"})

    assert listed(response) == [str(job.pk)]


@pytest.mark.django_db
def test_a_job_of_a_task_that_is_gone_is_found_by_the_beginning_of_its_name() -> None:
    job, _ = stored(task_path="gone.tasks.old"), stored()

    response = superuser().get(JOBS, {"q": "gone.tasks"})

    assert listed(response) == [str(job.pk)]


# The page of a job


@pytest.mark.django_db
def test_the_page_shows_arguments_meta_progress_and_result() -> None:
    progress = {"done": 50, "total": 200, "message": "rows read"}
    job = stored(args=[4711], kwargs={"language": "en"}, meta={"import": 7}, progress=progress, state="succeeded")
    Result.objects.create(job=job, value={"rows": 200})

    text = text_of(superuser().get(f"{JOBS}{job.pk}/change/"))

    assert "[ 4711 ]" in text
    assert '{ "language": "en" }' in text
    assert '{ "import": 7 }' in text
    assert "50 of 200 (25%) rows read" in text
    assert '{ "rows": 200 }' in text


@pytest.mark.django_db
def test_the_page_shows_the_attempts_with_their_errors_newest_first() -> None:
    start_worker()
    job = claimed()
    failure = Failure("builtins.ValueError", "No such order", "Traceback:\n  line 1", "f")
    write(outcome(job, "fail", failure=failure))
    Attempt.objects.create(job_id=job.id, number=7, worker_id="w8", ended_at=timezone.now(), outcome="crashed")

    text = text_of(superuser().get(f"{JOBS}{job.id}/change/"))

    assert text.index("Attempt 7 crashed") < text.index("Attempt 1 failed")
    assert f"by worker {WORKER}" in text
    assert "builtins.ValueError : No such order" in text
    assert "Traceback: line 1" in text


@pytest.mark.django_db
def test_the_page_shows_how_long_an_attempt_may_take_and_that_one_took_longer() -> None:
    job = stored(timeout=90)
    Attempt.objects.create(job=job, number=1, worker_id="w", ended_at=timezone.now(), outcome="timed_out")

    text = text_of(superuser().get(f"{JOBS}{job.pk}/change/"))

    assert "Timeout: 90 s" in text
    assert "Attempt 1 timed out" in text


@pytest.mark.django_db
def test_the_page_shows_only_the_newest_of_many_attempts() -> None:
    job = stored(state=JobState.FAILED)
    Attempt.objects.bulk_create(
        Attempt(job=job, number=number, worker_id="w", ended_at=timezone.now(), outcome="snoozed")
        for number in range(1, attempt.MOST_SHOWN + 2)
    )

    text = text_of(superuser().get(f"{JOBS}{job.pk}/change/"))

    assert f"Attempt {attempt.MOST_SHOWN + 1} " in text
    assert "Attempt 1 " not in text
    assert "Older attempts are not shown." in text


@pytest.mark.django_db
def test_what_jobs_contain_is_shown_as_text_and_never_as_markup() -> None:
    progress = {"done": 1, "total": 2, "message": SCRIPT}
    columns = dict.fromkeys(("task_path", "queue_name", "worker_id", "unique_key"), SCRIPT)
    job = stored(**columns, args=[SCRIPT], kwargs={SCRIPT: SCRIPT}, meta={"a": SCRIPT}, progress=progress)
    Result.objects.create(job=job, value=SCRIPT)
    Attempt.objects.create(
        job=job, number=1, worker_id=SCRIPT, ended_at=timezone.now(), outcome="failed", message=SCRIPT, traceback=SCRIPT
    )
    browser = superuser()

    pages = [browser.get(address).content.decode() for address in (JOBS, f"{JOBS}{job.pk}/change/")]

    for page in pages:
        assert SCRIPT not in page
        assert "&lt;script&gt;alert(1)" in page


@pytest.mark.django_db
def test_a_job_whose_task_is_gone_is_shown_with_that_problem() -> None:
    job = stored(task_path="tests.tasks.nop")

    text = text_of(superuser().get(f"{JOBS}{job.pk}/change/"))

    assert "not declared 'tests.tasks.nop' is not a declared task. Did you mean 'tests.tasks.noop'?" in text


@pytest.mark.django_db
@pytest.mark.parametrize(
    "columns",
    [
        {"args": {"no": "list"}, "kwargs": ["no", "dict"], "meta": "text", "progress": [1]},
        {"args": "text", "kwargs": 1.5, "meta": [], "progress": "half"},
        {"progress": {"done": "1", "total": None}},
        {"progress": {"done": 3, "total": 0, "message": None}},
        {"progress": {"done": 10**400, "total": 1}},
        {"args": ["\u202e odd \x7f \U0001f600"], "task_path": "", "queue_name": ""},
        {"state": JobState.RUNNING},
        {"state": JobState.SCHEDULED},
        {"state": JobState.SUCCEEDED, "worker_id": "w", "last_attempted_at": timezone.now() + timedelta(days=1)},
    ],
)
def test_an_odd_job_is_shown_all_the_same(columns: dict[str, Any]) -> None:
    job = stored(**columns)
    browser = superuser()

    responses = [browser.get(address) for address in (JOBS, f"{JOBS}{job.pk}/change/")]

    assert [response.status_code for response in responses] == [200, 200]


@pytest.mark.django_db
def test_a_long_traceback_is_shown_whole_and_long_arguments_are_cut() -> None:
    job = stored(state=JobState.FAILED, args=["x" * display.LONGEST_JSON])
    traceback = "y" * 50_000
    Attempt.objects.create(
        job=job, number=1, worker_id="w", ended_at=timezone.now(), outcome="failed", traceback=traceback
    )

    text = text_of(superuser().get(f"{JOBS}{job.pk}/change/"))

    assert traceback in text
    assert "Cut: 50,000 of 50,008 characters are shown." in text


@pytest.mark.django_db
def test_a_job_that_does_not_exist_leads_away_with_a_message() -> None:
    response = superuser().get(f"{JOBS}999999999/change/", follow=True)

    assert "Perhaps it was deleted?" in text_of(response)


@pytest.mark.django_db
def test_the_pages_contain_no_style_and_no_script_of_their_own() -> None:
    job = job_in(JobState.RUNNING)
    Job.objects.filter(pk=job.pk).update(progress={"done": 1, "total": 2})
    browser = superuser()

    pages = [browser.get(address).content.decode() for address in (JOBS, f"{JOBS}{job.pk}/change/")]

    for page in pages:
        assert " style=" not in page
        assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", page)
        assert 'href="/static/django_jobs/admin.css"' in page
