"""Deleting finished jobs."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Attempt, Job, Result
from django_jobs.signals import jobs_pruned
from django_jobs.states import FINISHED, UNFINISHED, JobState

from .rivals import TIMEOUT, Rival, let_pass, wait_until_blocked
from .rows import claimed, job_in, outcome, row, start_worker, write

pytestmark = pytest.mark.django_db


def finished(count: int) -> list[int]:
    start_worker()
    ids = []
    for _ in range(count):
        job = claimed()
        write(outcome(job, "succeed", result=1))
        ids.append(job.id)
    return ids


@pytest.mark.parametrize("state", FINISHED)
def test_a_finished_job_goes_with_its_result_and_history(state: JobState) -> None:
    job = job_in(state)
    Attempt.objects.get_or_create(job=job, number=1, defaults={"ended_at": job.finished_at})
    Result.objects.create(job=job, value=1)

    assert Job.objects.all().prune() == 1
    assert (Job.objects.count(), Attempt.objects.count(), Result.objects.count()) == (0, 0, 0)


@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_job_is_never_deleted(state: JobState) -> None:
    job_in(state)

    assert Job.objects.all().prune() == 0
    assert Job.objects.count() == 1


def test_the_longest_finished_go_first_up_to_the_limit() -> None:
    ids = finished(3)
    Job.objects.filter(pk=ids[0]).update(finished_at=row(ids[2]).finished_at)
    Job.objects.filter(pk=ids[1]).update(finished_at=row(ids[2]).enqueued_at)

    pruned = Job.objects.all().prune(limit=1)

    assert pruned == 1
    assert set(Job.objects.values_list("pk", flat=True)) == {ids[0], ids[2]}


def test_only_what_the_queryset_holds_is_deleted() -> None:
    ids = finished(3)

    pruned = Job.objects.filter(pk=ids[1]).prune()

    assert pruned == 1
    assert list(Job.objects.order_by("pk").values_list("pk", flat=True)) == [ids[0], ids[2]]


def test_receivers_are_told_how_many_went() -> None:
    finished(2)
    heard: list[int] = []

    def hear(count: int, **kwargs: Any) -> None:
        heard.append(count)

    jobs_pruned.connect(hear)
    try:
        Job.objects.all().prune()
        Job.objects.all().prune()
    finally:
        jobs_pruned.disconnect(hear)

    assert heard == [2]


def test_the_number_of_statements_does_not_grow_with_the_jobs() -> None:
    counts = []
    for number in (2, 40):
        finished(number)
        with CaptureQueriesContext(connection) as captured:
            Job.objects.all().prune()
        counts.append(len(captured))

    assert counts[0] == counts[1]


@pytest.mark.django_db(transaction=True)
def test_two_prunes_at_once_delete_each_job_once() -> None:
    finished(4)
    with Rival() as rival, Rival() as second:
        rival.begin()
        first_count = rival.run(Job.objects.all().prune, 2)
        pruning = second.start(Job.objects.all().prune, 10)
        let_pass(pruning)
        rival.commit()
        second_count = pruning.result(TIMEOUT)

    assert (first_count, second_count) == (2, 2)
    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_just_being_requeued_is_not_deleted() -> None:
    requeued, other = finished(2)
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(Job.objects.filter(pk=requeued).requeue)
        pruning = second.start(Job.objects.all().prune)
        let_pass(pruning)
        rival.commit()
        pruned = pruning.result(TIMEOUT)

    assert pruned == 1
    assert row(requeued).state == JobState.READY
    assert not Job.objects.filter(pk=other).exists()


@pytest.mark.django_db(transaction=True)
def test_a_requeue_of_a_job_that_is_just_being_deleted_moves_nothing() -> None:
    (pk,) = finished(1)
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(Job.objects.all().prune)
        requeueing = second.start(Job.objects.filter(pk=pk).requeue)
        wait_until_blocked()
        rival.commit()
        moved = requeueing.result(TIMEOUT)

    assert moved == 0
    assert Job.objects.count() == Result.objects.count() == 0
