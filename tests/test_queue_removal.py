"""Removing a queue: its row goes, and its jobs are kept, cancelled or deleted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.db import connection

from django_jobs import notifications
from django_jobs.exceptions import InvalidOption
from django_jobs.models import Job, Queue, queue_removal
from django_jobs.models.queue_removal import Removed
from django_jobs.signals import job_cancelled
from django_jobs.states import FINISHED, UNSTARTED, JobState
from django_jobs.worker.duties import declare_queues

from .exchanges import enqueue
from .rows import claim, job_in, outcome, start_worker, state_of, write

pytestmark = pytest.mark.django_db


def fill(queue_name: str) -> dict[JobState, Job]:
    """Have a job of the queue in every state."""
    return {state: job_in(state, queue_name=queue_name) for state in (*FINISHED, JobState.RUNNING, *UNSTARTED)}


def states(queue_name: str) -> Counter[str]:
    return Counter(Job.objects.filter(queue_name=queue_name).values_list("state", flat=True))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_removal, "PRUNE_BATCH", 2)


ONE_OF_EACH = Counter({str(state): 1 for state in (*FINISHED, JobState.RUNNING, *UNSTARTED)})


def test_kept_jobs_stay_as_they_are() -> None:
    Queue.objects.declare_all(["mail", "letters"])
    fill("mail")

    removed = Queue.objects.remove("mail", jobs="keep")

    assert removed == Removed(is_removed=True)
    assert states("mail") == ONE_OF_EACH
    assert list(Queue.objects.values_list("name", flat=True)) == ["letters"]
    assert Queue.objects.served_by(["*"]) == ["letters"]


def test_jobs_are_kept_unless_something_else_is_said() -> None:
    Queue.objects.declare("mail")
    fill("mail")

    Queue.objects.remove("mail")

    assert states("mail") == ONE_OF_EACH


def test_a_queue_with_ready_jobs_is_declared_again_with_the_defaults() -> None:
    Queue.objects.declare("mail", concurrency=5)
    enqueue(1, queue_name="mail")
    Queue.objects.remove("mail", jobs="keep")

    declare_queues()

    assert Queue.objects.get().concurrency is None


def test_unfinished_jobs_are_cancelled_and_running_ones_asked_to_stop(small_pieces: None) -> None:
    Queue.objects.declare_all(["mail", "letters"])
    jobs = fill("mail")
    fill("letters")

    removed = Queue.objects.remove("mail", jobs="cancel")

    assert removed == Removed(is_removed=True, cancelled=4, stopping=1)
    assert states("mail") == {"succeeded": 1, "failed": 1, "cancelled": 5, "running": 1}
    assert Job.objects.get(pk=jobs[JobState.RUNNING].pk).cancel_requested_at is not None
    assert states("letters") == ONE_OF_EACH
    assert not Job.objects.filter(queue_name="letters").exclude(cancel_requested_at=None).exists()


def test_all_jobs_that_do_not_run_are_deleted(small_pieces: None) -> None:
    Queue.objects.declare_all(["mail", "letters"])
    jobs = fill("mail")
    fill("letters")

    removed = Queue.objects.remove("mail", jobs="delete")

    assert removed == Removed(is_removed=True, cancelled=4, stopping=1, deleted=7)
    assert states("mail") == {"running": 1}
    assert Job.objects.get(pk=jobs[JobState.RUNNING].pk).cancel_requested_at is not None
    assert states("letters") == ONE_OF_EACH


def test_a_running_job_that_was_asked_to_stop_ends_and_does_not_come_back() -> None:
    start_worker()
    Queue.objects.declare("mail")
    [pk] = enqueue(1, queue_name="mail")
    [job] = claim(queues=["mail"])
    Queue.objects.remove("mail", jobs="delete")

    write(outcome(job, "cancel"))

    assert state_of(Job.objects.get(pk=pk)) == JobState.CANCELLED
    assert declare_queues() == 0


def test_a_job_that_waits_again_while_the_others_are_cancelled_goes_too() -> None:
    start_worker()
    Queue.objects.declare("mail")
    [pk, _] = enqueue(2, queue_name="mail")
    [job] = claim(limit=1, queues=["mail"])
    retries = [outcome(job, "retry", delay=60.0)]

    def meanwhile(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if retries and sql.startswith("SELECT") and "running" in map(str, params or ()):
            write(retries.pop())
        return execute(sql, params, many, context)

    with connection.execute_wrapper(meanwhile):
        removed = Queue.objects.remove("mail", jobs="cancel")

    assert removed == Removed(is_removed=True, cancelled=2)
    assert state_of(Job.objects.get(pk=pk)) == JobState.CANCELLED


@pytest.mark.parametrize("jobs", ["cancel", "delete"])
def test_more_jobs_than_a_piece_holds_all_go(jobs: str, small_pieces: None) -> None:
    Queue.objects.declare("mail")
    enqueue(7, queue_name="mail")

    removed = Queue.objects.remove("mail", jobs=jobs)

    assert removed == Removed(is_removed=True, cancelled=7, deleted=7 if jobs == "delete" else 0)


@pytest.mark.parametrize("jobs", ["cancel", "delete"])
def test_a_removal_may_be_done_in_several_goes(jobs: str, small_pieces: None) -> None:
    Queue.objects.declare("mail")
    enqueue(5, queue_name="mail")

    goes = [Queue.objects.remove("mail", jobs=jobs, at_most=4)]
    while goes[-1].has_more:
        goes.append(Queue.objects.remove("mail", jobs=jobs, at_most=4))

    assert [go.is_removed for go in goes] == [False] * (len(goes) - 1) + [True]
    assert goes[0] == Removed(is_removed=False, cancelled=4)
    assert sum(go.cancelled for go in goes) == 5
    assert not Queue.objects.exists()


@pytest.mark.parametrize("jobs", ["keep", "cancel", "delete"])
def test_without_such_a_queue_nothing_happens(jobs: str) -> None:
    fill("mail")

    removed = Queue.objects.remove("mail", jobs=jobs)

    assert removed == Removed(is_removed=False)
    assert not removed.has_more
    assert states("mail") == ONE_OF_EACH


def test_another_word_is_refused() -> None:
    Queue.objects.declare("mail")
    fill("mail")

    with pytest.raises(InvalidOption, match="are 'keep' or 'cancel' or 'delete', not 'drop'"):
        Queue.objects.remove("mail", jobs="drop")

    assert Queue.objects.exists()
    assert states("mail") == ONE_OF_EACH


@pytest.mark.parametrize("jobs", ["cancel", "delete"])
def test_the_slots_of_its_jobs_go_to_jobs_of_other_queues(jobs: str, small_pieces: None) -> None:
    Queue.objects.declare_all(["mail", "letters"])
    enqueue(5, queue_name="mail", concurrency_key="k")
    [other] = enqueue(1, queue_name="letters", concurrency_key="k")
    before = state_of(Job.objects.get(pk=other))

    Queue.objects.remove("mail", jobs=jobs)

    assert before == JobState.BLOCKED
    assert state_of(Job.objects.get(pk=other)) == JobState.READY


def test_receivers_hear_of_jobs_that_were_cancelled() -> None:
    Queue.objects.declare("mail")
    ids = enqueue(2, queue_name="mail")
    heard: list[int] = []

    def hear(job_id: int, **kwargs: Any) -> None:
        heard.append(job_id)

    job_cancelled.connect(hear)
    try:
        Queue.objects.remove("mail", jobs="delete")
    finally:
        job_cancelled.disconnect(hear)

    assert sorted(heard) == ids


def test_workers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Queue.objects.declare("mail")
    hints: list[str] = []
    monkeypatch.setattr(notifications, "hint", lambda kind, name="": hints.append(kind))

    Queue.objects.remove("mail")
    Queue.objects.remove("mail")

    assert hints == ["queues"]
