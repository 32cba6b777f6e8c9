"""Atomic jobs: their own writes and their end are one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, OperationalError, connection, connections, transaction

from django_jobs import task
from django_jobs.compat import InvalidTask, TaskResultStatus
from django_jobs.context import JobContext
from django_jobs.exceptions import Cancel, Snooze
from django_jobs.models import Job, Queue
from django_jobs.models.database import exclusive
from django_jobs.models.rescue import rescue_lost
from django_jobs.outcomes import ClaimedJob, PastAttempt
from django_jobs.states import AttemptOutcome, JobState
from django_jobs.testing import run_jobs

from . import tasks
from .attempts import claimed_job, ended, history, run, tried_again
from .exchanges import Hand
from .rivals import Rival, wait_until_blocked
from .rows import end_lease, row, state_of, write
from .worker_tasks import do, do_async, do_atomically, doing

pytestmark = pytest.mark.django_db(transaction=True)

with_rivals = pytest.mark.skipif(
    not connection.features.has_select_for_update, reason="Nobody else writes here while an atomic job runs."
)
at_the_commit = pytest.mark.skipif(
    not connection.features.supports_deferrable_unique_constraints, reason="Nothing is checked at the commit here."
)


def add_group(name: str = "written") -> str:
    Group.objects.create(name=name)
    return name


def groups() -> list[str]:
    return sorted(Group.objects.values_list("name", flat=True))


def then(*steps: Callable[[], Any]) -> str:
    """Have a job do these one after the other, and return what the last returns."""

    def body() -> Any:
        return [step() for step in steps][-1]

    return doing(body)


def fail() -> None:
    raise ValueError("no")


# One transaction


def test_what_an_atomic_job_writes_is_committed_with_its_success() -> None:
    job = claimed_job(do_atomically, then(add_group))

    outcome = run(job)

    assert (state_of(job), groups()) == (JobState.SUCCEEDED, ["written"])
    assert (outcome.verb, outcome.is_written) == ("succeed", True)
    assert Job.objects.get(pk=job.id).result.value == "written"


@with_rivals
def test_nobody_sees_the_writes_before_the_success_nor_the_success_before_the_writes() -> None:
    seen: list[Any] = []
    with Rival() as rival:

        def look() -> None:
            seen.append(rival.run(lambda: (groups(), state_of(job))))

        job = claimed_job(do_atomically, then(add_group, look))
        run(job)
        look()

    assert seen == [([], JobState.RUNNING), (["written"], JobState.SUCCEEDED)]


def test_an_ordinary_job_keeps_what_it_wrote_before_it_failed() -> None:
    ended(do, then(add_group, fail))

    assert groups() == ["written"]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("no"), JobState.SCHEDULED),
        (SystemExit(1), JobState.SCHEDULED),
        (Snooze(1), JobState.SCHEDULED),
        (Cancel("never mind"), JobState.CANCELLED),
    ],
)
def test_an_attempt_that_raises_leaves_nothing_behind(error: BaseException, state: JobState) -> None:
    def give_up() -> None:
        raise error

    job = ended(do_atomically, then(add_group, give_up))

    assert (job.state, groups()) == (state, [])
    assert len(history(job)) == 1


def test_the_attempt_that_succeeds_writes_once() -> None:
    attempts = iter([fail, lambda: None])
    job = ended(do_atomically, then(add_group, lambda: next(attempts)()))

    done = tried_again(job.pk)

    assert (done.state, groups()) == (JobState.SUCCEEDED, ["written"])


def test_a_value_that_cannot_be_stored_fails_the_job_and_rolls_it_back() -> None:
    job = ended(do_atomically, then(add_group, lambda: object()))

    assert (job.state, groups()) == (JobState.FAILED, [])
    assert "The job is not run again" in history(job)[0].message


def test_what_an_atomic_job_notes_in_its_meta_is_committed_with_it() -> None:
    job = claimed_job(note_in_meta)

    run(job)

    assert row(job.id).meta == {"pages": 3}


@task(takes_context=True, atomic=True)
def note_in_meta(context: JobContext) -> None:
    context.meta["pages"] = 3


def test_an_error_of_the_database_that_the_job_swallowed_rolls_it_back() -> None:
    def add_twice() -> None:
        try:
            add_group("twice")
            add_group("twice")
        except IntegrityError:
            transaction.set_rollback(True)

    job = ended(do_atomically, then(add_twice))

    assert (job.state, groups()) == (JobState.SCHEDULED, [])


@at_the_commit
def test_a_constraint_that_is_checked_at_the_commit_fails_the_attempt() -> None:
    def break_a_foreign_key() -> None:
        User.groups.through.objects.create(user_id=1, group_id=1)

    job = ended(do_atomically, then(add_group, break_a_foreign_key))

    assert (job.state, groups()) == (JobState.SCHEDULED, [])
    assert history(job)[0].exception_class == "django.db.utils.IntegrityError"


def test_jobs_that_an_attempt_enqueued_before_it_failed_do_not_run() -> None:
    job = ended(do_atomically, then(lambda: tasks.noop.enqueue() and None, fail))

    assert set(Job.objects.values_list("pk", flat=True)) == {job.pk}


# The fence


def rescue() -> None:
    end_lease()
    rescue_lost()


def cancel() -> None:
    Job.objects.running().cancel()


def test_a_job_that_was_rescued_before_it_began_commits_nothing() -> None:
    job = claimed_job(do_atomically, then(add_group))
    rescue()

    outcome = run(job)

    assert (outcome.verb, outcome.is_written) == ("release", False)
    assert (state_of(job), groups()) == (JobState.READY, [])
    assert write(outcome).late == [outcome]


def test_a_job_that_somebody_cancelled_before_it_began_commits_nothing_and_ends_as_cancelled() -> None:
    job = claimed_job(do_atomically, then(add_group))
    cancel()

    write(run(job))

    assert (state_of(job), groups()) == (JobState.CANCELLED, [])


@with_rivals
@pytest.mark.parametrize(("others", "state"), [(rescue, JobState.READY), (cancel, JobState.CANCELLED)])
def test_a_job_that_others_end_while_it_runs_commits_nothing(others: Callable[[], None], state: JobState) -> None:
    with Rival() as rival:
        job = claimed_job(do_atomically, then(add_group, lambda: rival.run(others)))
        write(run(job))

    assert (state_of(job), groups()) == (state, [])


@with_rivals
@pytest.mark.parametrize(("others", "state"), [(rescue, JobState.READY), (cancel, JobState.CANCELLED)])
def test_a_job_that_others_are_ending_waits_for_them_and_commits_nothing(
    others: Callable[[], None], state: JobState
) -> None:
    with Rival() as rival, ThreadPoolExecutor(1) as pool:

        def end_it_unseen() -> None:
            rival.begin()
            rival.run(others)

        job = claimed_job(do_atomically, then(add_group, end_it_unseen))
        commit = pool.submit(lambda: [wait_until_blocked(), rival.commit(), connections.close_all()])
        outcome = run(job)
        commit.result()
        write(outcome)

    assert (state_of(job), groups()) == (state, [])


@with_rivals
def test_a_rescue_that_meets_the_commit_leaves_the_job_alone() -> None:
    with Rival() as rival:
        job = claimed_job(do_atomically, then(add_group))
        with transaction.atomic():
            run(job)
            rival.run(rescue)
        rival.run(rescue)

    assert (state_of(job), groups()) == (JobState.SUCCEEDED, ["written"])


# What the database keeps it from


def lose_the_connection(execute: Callable[..., Any], sql: Any, *more: Any) -> Any:
    if str(sql).startswith("UPDATE") and "django_jobs_job" in str(sql):
        raise OperationalError("the database is locked")
    return execute(sql, *more)


def test_an_error_in_writing_the_success_is_not_held_against_the_job() -> None:
    job = claimed_job(do_atomically.using(max_attempts=1), then(add_group))

    with connection.execute_wrapper(lose_the_connection):
        outcome = run(job)
    write(outcome)

    assert (outcome.verb, outcome.delay) == ("snooze", 1.0)
    assert (state_of(job), groups()) == (JobState.SCHEDULED, [])
    assert tried_again(job.id).state == JobState.SUCCEEDED
    assert groups() == ["written"]


def test_an_atomic_job_that_the_database_never_lets_end_is_not_run_for_ever() -> None:
    job = claimed_job(do_atomically.using(max_attempts=1), then(add_group))
    past = PastAttempt("w", AttemptOutcome.SNOOZED, "", "")

    with connection.execute_wrapper(lose_the_connection):
        assert run(job._replace(history=(past,) * 9)).delay == 60.0
        assert run(job._replace(history=(past,) * 10)).verb == "fail"


def test_the_same_error_inside_the_function_fails_the_attempt() -> None:
    def raise_it() -> None:
        raise OperationalError("the database is locked")

    assert run(claimed_job(do_atomically, then(raise_it))).verb == "retry"


# After the commit


def test_what_waits_for_the_commit_is_called_after_it() -> None:
    seen: list[JobState] = []
    job = claimed_job(do_atomically, doing(lambda: transaction.on_commit(lambda: seen.append(state_of(job)))))

    run(job)

    assert seen == [JobState.SUCCEEDED]


def test_an_error_after_the_commit_does_not_run_the_job_again(caplog: pytest.LogCaptureFixture) -> None:
    job = claimed_job(do_atomically, then(lambda: transaction.on_commit(fail), add_group))

    outcome = run(job)

    assert (outcome.verb, outcome.is_written) == ("succeed", True)
    assert (state_of(job), groups()) == (JobState.SUCCEEDED, ["written"])
    assert f"Job {job.id} has succeeded, but what it had left for after its commit raised." in caplog.text


# In the worker


@pytest.fixture
def hand() -> Iterator[Hand]:
    Queue.objects.declare("default")
    with Hand(claim_ahead=0) as made:
        yield made


def test_the_exchange_takes_note_of_what_a_job_has_written_itself(hand: Hand) -> None:
    first, second = (int(do_atomically.enqueue(then(lambda: None)).id) for _ in range(2))
    hand.turn()
    outcomes = [run(hand.begin()), run(hand.begin())]
    hand.exchange.done(outcomes[0])

    assert hand.turn() == [second]
    hand.exchange.done(outcomes[1])
    assert hand.turn() == []
    assert hand.told() == [(first, "succeed"), (second, "succeed")]
    assert hand.exchange.processed == 2


def test_a_written_success_is_settled_beside_others_that_wait(hand: Hand) -> None:
    written, failed = (int(do_atomically.enqueue(then(step)).id) for step in (lambda: None, fail))
    plain = int(tasks.noop.enqueue().id)
    hand.turn()
    for _ in range(2):
        hand.exchange.done(run(hand.begin()))
    hand.settle()
    hand.exchange.done(run(hand.begin()))
    hand.settle()

    assert hand.exchange.held == []
    assert [state_of(row(pk)) for pk in (written, failed, plain)] == [
        JobState.SUCCEEDED,
        JobState.SCHEDULED,
        JobState.SUCCEEDED,
    ]
    assert hand.told() == [(written, "succeed"), (failed, "retry"), (plain, "succeed")]


def test_a_middleware_runs_inside_of_the_transaction() -> None:
    def writing(call: Callable[[ClaimedJob], Any]) -> Callable[[ClaimedJob], Any]:
        def run(job: ClaimedJob) -> Any:
            add_group("of the middleware")
            return call(job)

        return run

    run(claimed_job(do_atomically, then(fail)), [writing])
    assert groups() == []
    run(claimed_job(do_atomically, then(lambda: None)), [writing])
    assert groups() == ["of the middleware"]


def test_an_unknown_task_is_not_asked_whether_it_is_atomic() -> None:
    job = claimed_job(do, then(lambda: None))._replace(task_path="gone.for.good")

    assert run(job).verb != "succeed"


# In tests of projects


def test_run_jobs_keeps_and_rolls_back_as_a_worker_does() -> None:
    kept, undone = do_atomically.enqueue(then(add_group)), do_atomically.enqueue(then(lambda: add_group("no"), fail))

    assert run_jobs() == 2

    assert groups() == ["written"]
    assert [state_of(row(result.id)) for result in (kept, undone)] == [JobState.SUCCEEDED, JobState.SCHEDULED]


@pytest.mark.parametrize("begins_with", [[], [exclusive]])
def test_the_immediate_backend_rolls_back_a_failed_atomic_task(settings: Any, begins_with: list[Any]) -> None:
    settings.TASKS = {"default": {"BACKEND": "django_jobs.testing.ImmediateBackend"}}
    for begin in begins_with:
        with begin():
            assert do_atomically.enqueue(then(add_group, fail)).status == TaskResultStatus.FAILED
    assert do_atomically.enqueue(then(add_group, fail)).status == TaskResultStatus.FAILED
    assert do_atomically.enqueue(then(lambda: add_group("kept"))).status == TaskResultStatus.SUCCESSFUL

    assert groups() == ["kept"]


# Declaring


def test_atomic_is_refused_for_async_functions_with_a_way_out() -> None:
    with pytest.raises(InvalidTask, match=r"atomic=True needs a plain function.*Make it def, or write what belongs"):
        task(atomic=True)(do_async.func)


def test_atomic_is_yes_or_no() -> None:
    with pytest.raises(InvalidTask, match="atomic is True or False, not 'yes'"):
        task(atomic="yes")(do.func)  # type: ignore[call-overload]


def test_tasks_are_not_atomic_unless_they_say_so() -> None:
    assert (do.atomic, do_atomically.atomic) == (False, True)
