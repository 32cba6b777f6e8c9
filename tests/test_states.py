"""Every state and every verb, in the table and on real rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_jobs.models import Job
from django_jobs.models.database import exclusive
from django_jobs.models.insert import NewJob, Options
from django_jobs.models.job_queryset import JobQuerySet
from django_jobs.outcomes import Fate
from django_jobs.states import FINISHED, TRANSITIONS, UNFINISHED, JobState

from .rows import WORKER, job_in, values


def claim_it(job: Job) -> Any:
    with exclusive():
        return Job.objects.claim(WORKER, [job.queue_name], 1)


def cancel_it(job: Job) -> Any:
    """Ask for it as a person does, and then, where it is running, as its worker does."""
    Job.objects.filter(pk=job.pk).cancel()
    return Job.objects.cancel_held(WORKER, [job.pk])


def replace_it(job: Job) -> Any:
    new = NewJob(Options("tests.tasks.noop", "default", 0, 3, "default"), "[1]", "{}")
    return Job.objects.replace(new.options, {job.pk: new})


VERBS: dict[str, Callable[[Job], Any]] = {
    "stage": lambda job: Job.objects.filter(pk=job.pk).stage(),
    "admit": lambda job: Job.objects.admit([job.pk]),
    "block": lambda job: Job.objects.block([job.pk]),
    "replace": replace_it,
    "claim": claim_it,
    "succeed": lambda job: Job.objects.succeed(WORKER, job.attempt, [job.pk]),
    "fail": lambda job: Job.objects.fail(WORKER, [job.pk]),
    "retry": lambda job: Job.objects.retry(WORKER, {job.pk: 60.0}),
    "snooze": lambda job: Job.objects.snooze(WORKER, {job.pk: 60.0}),
    "postpone": lambda job: Job.objects.postpone(WORKER, {job.pk: 60.0}),
    "cancel": cancel_it,
    "release": lambda job: Job.objects.release(WORKER, [job.pk]),
    "rescue": lambda job: Job.objects.rescue({job.pk: Fate()}),
    "requeue": lambda job: Job.objects.filter(pk=job.pk).requeue(),
    "prune": lambda job: Job.objects.filter(pk=job.pk).prune(),
}


def test_every_state_is_finished_or_not() -> None:
    assert set(FINISHED) | set(UNFINISHED) == set(JobState)
    assert not set(FINISHED) & set(UNFINISHED)


def test_the_queryset_has_a_method_for_each_verb_of_the_table() -> None:
    assert all(callable(getattr(JobQuerySet, verb, None)) for verb in TRANSITIONS)


def test_every_verb_of_the_table_is_driven_here() -> None:
    assert VERBS.keys() == TRANSITIONS.keys()


@pytest.mark.django_db
@pytest.mark.parametrize("verb", TRANSITIONS)
@pytest.mark.parametrize("state", JobState)
def test_a_verb_moves_jobs_as_the_table_says_and_no_others(state: JobState, verb: str) -> None:
    sources, targets, _ = TRANSITIONS[verb]
    job = job_in(state)
    before = values(job.pk)

    VERBS[verb](job)

    after = values(job.pk)
    if state not in sources:
        assert after == before
    elif not targets:
        assert after == {}
    else:
        assert after["state"] in targets


@pytest.mark.django_db
@pytest.mark.parametrize("state", JobState)
def test_staging_what_is_due_leaves_what_is_not(state: JobState) -> None:
    job = job_in(state)
    before = values(job.pk)

    moved = Job.objects.stage_due()

    assert moved == 0
    assert values(job.pk) == before


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["succeed", "fail", "retry", "snooze", "postpone", "release"])
def test_a_verb_of_another_worker_changes_nothing(verb: str) -> None:
    job = job_in(JobState.RUNNING)
    Job.objects.filter(pk=job.pk).update(worker_id="w2")
    before = values(job.pk)

    moved = VERBS[verb](job)

    assert moved == 0
    assert values(job.pk) == before


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["retry", "snooze", "postpone", "release", "rescue", "requeue"])
def test_a_job_that_leaves_its_worker_forgets_it(verb: str) -> None:
    source = TRANSITIONS[verb].sources[0]
    job = job_in(source)

    VERBS[verb](job)

    assert values(job.pk)["worker_id"] == ""
