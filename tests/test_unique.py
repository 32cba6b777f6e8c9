"""Unique keys: at most one unfinished job has one."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from django_jobs import enqueue_many
from django_jobs.compat import TaskResultStatus, task_enqueued
from django_jobs.models import Job
from django_jobs.signals import job_enqueued

from . import tasks
from .rivals import TIMEOUT, Rival, wait_until_blocked
from .rows import HOUR, claim, outcome, start_worker, write


@pytest.mark.django_db
def test_a_second_job_with_a_unique_key_is_the_first() -> None:
    unique = tasks.add.using(unique_key="once")

    first, second = unique.enqueue(1), unique.enqueue(2)

    assert second.id == first.id
    assert list(Job.objects.values_list("args", flat=True)) == [[1]]


@pytest.mark.django_db
def test_a_second_result_with_a_unique_key_tells_how_far_the_first_job_is() -> None:
    unique = tasks.add.using(unique_key="once")
    unique.enqueue(1)
    start_worker()
    claim()

    second = unique.enqueue(2)

    assert (second.status, second.args, second.attempts) == (TaskResultStatus.RUNNING, [1], 1)
    assert second.started_at is not None


@pytest.mark.django_db
def test_a_unique_key_is_free_again_once_its_job_has_ended() -> None:
    unique = tasks.noop.using(unique_key="once")
    first = unique.enqueue()
    start_worker()
    write(outcome(claim()[0], "succeed"))

    second = unique.enqueue()

    assert second.id != first.id


@pytest.mark.django_db
def test_a_unique_key_does_not_abort_the_callers_transaction() -> None:
    unique = tasks.noop.using(unique_key="once")
    with transaction.atomic():
        unique.enqueue()
        unique.enqueue()
        tasks.noop.enqueue()

    assert Job.objects.count() == 2


@pytest.mark.django_db
def test_only_the_job_that_is_new_is_announced() -> None:
    announced: list[str] = []

    def receive_job(**kwargs: Any) -> None:
        announced.append("job")

    def receive_task(**kwargs: Any) -> None:
        announced.append("task")

    unique = tasks.noop.using(unique_key="once", run_after=HOUR)
    job_enqueued.connect(receive_job)
    task_enqueued.connect(receive_task)
    try:
        unique.enqueue()
        unique.enqueue_many([((), {}), ((), {})])
    finally:
        job_enqueued.disconnect(receive_job)
        task_enqueued.disconnect(receive_task)

    assert announced == ["job", "task"]


@pytest.mark.django_db(transaction=True)
def test_of_two_sessions_that_enqueue_one_unique_key_at_once_one_waits_and_gets_the_others_job() -> None:
    unique = tasks.noop.using(unique_key="once")
    with Rival() as rival:
        rival.begin()
        first = rival.run(unique.enqueue)
        with Rival() as second_rival:
            waiting = second_rival.start(unique.enqueue)
            wait_until_blocked()
            rival.commit()
            second = waiting.result(TIMEOUT)

    assert second.id == first.id
    assert Job.objects.count() == 1


@pytest.mark.django_db
def test_unique_jobs_among_others_keep_their_place_in_the_order() -> None:
    unique = tasks.noop.using(unique_key="once")

    enqueue_many([(tasks.noop, (1,), {}), (unique, (2,), {}), (tasks.noop, (3,), {})])

    assert list(Job.objects.order_by("pk").values_list("args", flat=True)) == [[1], [2], [3]]
