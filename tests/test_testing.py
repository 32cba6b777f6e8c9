"""The helpers for tests of projects: jobs run in the test's own thread, and assertions about what was enqueued."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils import timezone, translation

from django_jobs import Retry, Snooze, current_job, signals
from django_jobs.compat import TaskResultStatus, task_backends, task_enqueued
from django_jobs.context import JobContext
from django_jobs.exceptions import DuplicateJob, InvalidArgument, UnknownTask
from django_jobs.models import Job, Queue, Worker
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from django_jobs.testing import DummyBackend, assert_enqueued, assert_not_enqueued, jobs, run_jobs

from . import tasks
from .attempts import history
from .rows import HOUR, row, state_of
from .unique_tasks import ship, ship_latest, ship_once
from .worker_tasks import (
    do,
    do_and_retry_at_once,
    do_async,
    do_async_with_context,
    do_with_context,
    doing,
    raising,
    returning,
)

__all__ = ["jobs"]

IMMEDIATE = {"default": {"BACKEND": "django_jobs.testing.ImmediateBackend", "QUEUES": []}}
DUMMY = {"default": {"BACKEND": "django_jobs.testing.DummyBackend", "QUEUES": []}}


class RunJobs(TestCase):
    """Inside a TestCase, and so inside its transaction."""

    def test_a_ready_job_is_run_and_ends_as_a_worker_would_end_it(self) -> None:
        result = tasks.add.enqueue(1, b=2)

        attempts = run_jobs()

        result.refresh()
        assert attempts == 1
        assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, 3)
        assert row(result.id).attempt == 1

    def test_nothing_to_run_is_no_error(self) -> None:
        assert run_jobs() == 0

    def test_what_a_job_writes_is_in_the_transaction_of_the_test(self) -> None:
        do.enqueue(doing(lambda: Group.objects.create(name="made by a job") and None))

        run_jobs()

        assert Group.objects.filter(name="made by a job").exists()

    def test_jobs_run_by_priority_and_then_in_their_order_whatever_their_queue(self) -> None:
        ran: list[str] = []
        for name, queue, priority in (("a", "x", 0), ("b", "y", 5), ("c", "x", 5), ("d", "default", -5)):
            do.using(queue_name=queue, priority=priority).enqueue(doing(lambda name=name: ran.append(name)))

        run_jobs()

        assert ran == ["b", "c", "a", "d"]

    def test_jobs_that_jobs_enqueue_are_run_too(self) -> None:
        ran: list[int] = []

        def go_on(left: int) -> None:
            ran.append(left)
            if left:
                do.enqueue(doing(go_on), left - 1)

        do.enqueue(doing(go_on), 2)

        assert run_jobs() == 3
        assert ran == [2, 1, 0]

    def test_a_retry_is_run_when_it_is_due(self) -> None:
        job = do_and_retry_at_once.enqueue(raising(ValueError("bad")))

        attempts = run_jobs()

        assert attempts == 3
        assert state_of(job) == JobState.FAILED
        assert [attempt.message for attempt in history(job)] == ["bad"] * 3

    def test_a_retry_that_is_not_due_waits(self) -> None:
        job = do.enqueue(raising(Retry(HOUR)))

        assert run_jobs() == 1
        assert state_of(job) == JobState.SCHEDULED

    def test_retries_and_scheduled_jobs_are_run_at_once_on_request(self) -> None:
        failing = do.enqueue(raising(Retry(HOUR)))
        later = tasks.noop.using(run_after=HOUR).enqueue()

        attempts = run_jobs(include_scheduled=True)

        assert attempts == 4
        assert (state_of(failing), state_of(later)) == (JobState.FAILED, JobState.SUCCEEDED)

    def test_a_scheduled_job_that_is_due_is_run(self) -> None:
        job = tasks.noop.using(run_after=timezone.now() - HOUR).enqueue()

        assert run_jobs() == 1
        assert state_of(job) == JobState.SUCCEEDED

    def test_an_async_job_is_run(self) -> None:
        async def body() -> int:
            return await Group.objects.acount()

        Group.objects.create(name="of the test")
        result = do_async.enqueue(doing(body))

        run_jobs()

        result.refresh()
        assert result.return_value == 1

    def test_a_limit_stops_after_so_many_attempts(self) -> None:
        ids = [tasks.noop.enqueue().id for _ in range(3)]

        attempts = run_jobs(limit=2)

        assert attempts == 2
        assert [row(pk).state for pk in ids] == [JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.READY]

    def test_a_limit_ends_a_job_that_comes_back_for_ever(self) -> None:
        job = do.enqueue(raising(Snooze(HOUR)))

        attempts = run_jobs(limit=5, include_scheduled=True)

        assert attempts == 5
        assert state_of(job) == JobState.SCHEDULED

    def test_one_queue_alone_is_run(self) -> None:
        mail, other = tasks.send_mail.enqueue("a@example.com"), tasks.noop.enqueue()

        attempts = run_jobs("mail")

        assert attempts == 1
        assert (state_of(mail), state_of(other)) == (JobState.SUCCEEDED, JobState.READY)

    def test_a_paused_queue_is_left_alone(self) -> None:
        Queue.objects.declare("mail")
        Queue.objects.pause("mail")
        tasks.send_mail.enqueue("a@example.com")

        assert run_jobs() == 0

    def test_a_job_has_its_context(self) -> None:
        seen: dict[str, Any] = {}

        def body(context: JobContext) -> None:
            seen.update(id=context.job_id, attempt=context.attempt, is_current=current_job() is context)
            context.progress(1, 2, "half")
            context.check()
            context.meta["note"] = "kept"

        job = do_with_context.using(meta={"team": "sales"}).enqueue(doing(body))

        run_jobs()

        assert seen == {"id": int(job.id), "attempt": 1, "is_current": True}
        assert row(job.id).progress == {"done": 1, "total": 2, "message": "half"}
        assert row(job.id).meta == {"team": "sales", "note": "kept"}

    def test_an_async_job_has_its_context(self) -> None:
        async def body(context: JobContext) -> None:
            context.progress(3, 4)
            context.meta["note"] = "kept"

        job = do_async_with_context.enqueue(doing(body))

        run_jobs()

        assert (row(job.id).progress["done"], row(job.id).meta) == (3, {"note": "kept"})

    def test_a_job_that_breaks_the_transaction_fails_alone(self) -> None:
        """As with a worker, where such an error ends no more than its own statement."""
        Group.objects.create(name="taken")

        def body() -> None:
            Group.objects.create(name="taken")

        failing, other = do.using(max_attempts=1).enqueue(doing(body)), tasks.noop.enqueue()

        run_jobs()

        assert (state_of(failing), state_of(other)) == (JobState.FAILED, JobState.SUCCEEDED)
        assert history(failing)[0].exception_class == "django.db.utils.IntegrityError"

    def test_what_a_failing_job_has_written_stays(self) -> None:
        def body() -> None:
            Group.objects.create(name="half")
            raise ValueError("bad")

        do.enqueue(doing(body))

        run_jobs()

        assert Group.objects.filter(name="half").exists()

    def test_receivers_have_been_told_when_it_returns(self) -> None:
        told: list[tuple[str, int]] = []

        def hear(signal: Any, job_id: int, **arguments: Any) -> None:
            told.append((names[signal], job_id))

        names = {signals.job_started: "started", signals.job_succeeded: "succeeded"}
        for signal in names:
            signal.connect(hear)
        try:
            pk = int(tasks.noop.enqueue().id)
            run_jobs()
        finally:
            for signal in names:
                signal.disconnect(hear)

        assert told == [("started", pk), ("succeeded", pk)]

    def test_a_job_of_an_undeclared_task_waits_alone(self) -> None:
        bad, good = Job.objects.create(task_path="no.such.task"), tasks.noop.enqueue()

        attempts = run_jobs(include_scheduled=True)

        assert attempts == 2
        assert [attempt.outcome for attempt in history(bad)] == [AttemptOutcome.POSTPONED]
        assert (state_of(bad), state_of(good)) == (JobState.SCHEDULED, JobState.SUCCEEDED)

    def test_a_job_begins_with_the_languages_of_the_settings_and_leaves_the_tests_own(self) -> None:
        seen: list[Any] = []

        def body() -> None:
            seen.extend([translation.get_language(), timezone.get_current_timezone_name()])
            translation.activate("fr")
            timezone.activate("Asia/Tokyo")

        do.enqueue(doing(body))
        with translation.override("de"), timezone.override("Europe/Berlin"):
            run_jobs()
            after = (translation.get_language(), timezone.get_current_timezone_name())

        assert seen == ["en-us", "UTC"]
        assert after == ("de", "Europe/Berlin")

    def test_it_leaves_no_live_worker_behind(self) -> None:
        tasks.noop.enqueue()

        run_jobs()
        run_jobs()

        assert [worker.state for worker in Worker.objects.all()] == [WorkerState.STOPPED]


class Assertions(TestCase):
    def test_a_job_is_found_by_task_arguments_and_fields(self) -> None:
        tasks.add.using(queue_name="sums", priority=3).enqueue(1, b=(2, 3))

        job = assert_enqueued(tasks.add, args=(1,), kwargs={"b": [2, 3]}, queue_name="sums", priority=3)

        assert job == Job.objects.get()

    def test_the_last_of_several_is_returned(self) -> None:
        tasks.add.enqueue(1)
        last = tasks.add.enqueue(2)

        assert assert_enqueued(tasks.add, times=2).pk == int(last.id)

    def test_a_scheduled_job_counts_and_a_finished_one_does_not(self) -> None:
        tasks.noop.enqueue()
        run_jobs()
        tasks.add.using(run_after=HOUR).enqueue(1)

        assert_enqueued(tasks.add, state=JobState.SCHEDULED)
        assert_not_enqueued(tasks.noop)

    def test_a_task_may_be_given_by_any_of_its_names(self) -> None:
        tasks.send_receipt.enqueue(7)

        for name in (tasks.send_receipt, "orders.receipt", "shop.tasks.receipt"):
            assert_enqueued(name, [7], times=1)

    def test_a_missing_job_is_told_with_what_there_is(self) -> None:
        tasks.add.enqueue(2, b=3)

        with pytest.raises(AssertionError) as caught:
            assert_enqueued(tasks.add, [1], queue_name="sums")

        assert str(caught.value) == (
            "Expected at least one job of tests.tasks.add(args=[1], queue_name='sums'), found 0. "
            "Enqueued: tests.tasks.add(*[2], **{'b': 3})."
        )

    def test_another_number_of_jobs_is_told(self) -> None:
        tasks.add.enqueue(1)

        with pytest.raises(AssertionError, match=r"^Expected 2 jobs of tests\.tasks\.add\(\), found 1\. Enqueued: "):
            assert_enqueued(tasks.add, times=2)
        with pytest.raises(AssertionError, match=r"^Expected 1 job of tests\.tasks\.noop\(\), found 0\. Enqueued: "):
            assert_enqueued(tasks.noop, times=1)

    def test_zero_times_is_no_job(self) -> None:
        assert assert_enqueued(tasks.add, times=0) is None

    def test_a_job_that_should_not_be_there_is_told(self) -> None:
        tasks.add.enqueue(1)

        assert_not_enqueued(tasks.add, [2])
        with pytest.raises(AssertionError, match=r"^Expected no job of tests\.tasks\.add\(args=\[1\]\), found 1\. "):
            assert_not_enqueued(tasks.add, [1])

    def test_an_empty_database_is_told_as_such(self) -> None:
        with pytest.raises(AssertionError, match=r"Enqueued: nothing\.$"):
            assert_enqueued(tasks.add)

    def test_a_task_that_nobody_declared_is_an_error_and_no_missing_job(self) -> None:
        with pytest.raises(UnknownTask, match=r"Did you mean 'tests\.tasks\.add'"):
            assert_not_enqueued("tests.tasks.ad")


def test_the_fixture_has_all_three(jobs: Any) -> None:
    tasks.noop.enqueue()
    jobs.assert_enqueued(tasks.noop)

    attempts = jobs.run()

    assert attempts == 1
    jobs.assert_not_enqueued(tasks.noop)


@override_settings(TASKS=IMMEDIATE)
class RunAtOnce(SimpleTestCase):
    """ImmediateBackend, in tests that have no database."""

    def test_a_task_runs_when_it_is_enqueued(self) -> None:
        result = tasks.add.enqueue(1, b=2)

        assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, 3)

    def test_the_options_of_our_tasks_are_known(self) -> None:
        bound = tasks.add.using(priority=5, queue_name="sums", run_after=HOUR, max_attempts=2, unique_key="one")

        result = bound.enqueue(1, 2)

        assert result.return_value == 3
        assert (result.task.priority, result.task.max_attempts, result.task.delay) == (5, 2, HOUR)

    def test_an_error_is_in_the_result(self) -> None:
        result = do.enqueue(raising(ValueError("bad")))

        assert result.status == TaskResultStatus.FAILED
        assert result.errors[0].exception_class is ValueError

    def test_an_async_task_runs_too(self) -> None:
        assert tasks.add_async.enqueue(1, 2).return_value == 3

    def test_many_run_in_their_order(self) -> None:
        results = tasks.add.enqueue_many([((1,), {}), ((2,), {"b": 2})])

        assert [result.return_value for result in results] == [1, 4]

    def test_a_task_has_the_context_of_a_job(self) -> None:
        def body(context: JobContext) -> list[Any]:
            context.progress(1, 2, "half")
            context.check()
            context.meta["note"] = "forgotten"
            return [context.attempt, context.meta, current_job() is context]

        async def async_body(context: JobContext) -> list[Any]:
            return body(context)

        for task, its_body in ((do_with_context, body), (do_async_with_context, async_body)):
            bound = task.using(meta={"team": "sales"})
            result = bound.enqueue(doing(its_body))

            assert result.errors == []
            assert result.return_value == [1, {"team": "sales", "note": "forgotten"}, True]
            assert bound.meta == {"team": "sales"}
        assert current_job() is None

    def test_every_unique_job_runs_since_the_one_before_has_ended(self) -> None:
        results = [ship.enqueue(1, "a"), ship.enqueue(1, "b"), *ship.enqueue_many([((1, "c"), {})])]

        assert [result.return_value for result in results] == ["a", "b", "c"]
        assert all(result.is_new for result in results)


@override_settings(TASKS=DUMMY)
class KeepOnly(SimpleTestCase):
    """DummyBackend, in tests that have no database."""

    def setUp(self) -> None:
        self.backend.clear()

    @property
    def backend(self) -> DummyBackend:
        backend = task_backends["default"]
        assert isinstance(backend, DummyBackend)
        return backend

    def test_what_is_enqueued_is_kept_and_not_run(self) -> None:
        result = do.using(max_attempts=9, run_after=timedelta(minutes=5)).enqueue(raising(ValueError("never")))

        (kept,) = self.backend.results
        assert kept == result
        assert (kept.status, kept.task.max_attempts) == (TaskResultStatus.READY, 9)
        assert kept.task.delay == timedelta(minutes=5)

    def test_many_are_kept_in_their_order(self) -> None:
        tasks.add.enqueue_many([((1,), {}), ((2,), {"b": 2})])

        assert [(kept.args, kept.kwargs) for kept in self.backend.results] == [([1], {}), ([2], {"b": 2})]

    def test_of_unique_jobs_the_first_is_kept(self) -> None:
        first, second, other = ship.enqueue(1, "a"), ship.enqueue(order_id=1), ship.enqueue(2)

        assert [result.is_new for result in (first, second, other)] == [True, False, True]
        assert (second.id, second.args) == (first.id, [1, "a"])
        assert [kept.id for kept in self.backend.results] == [first.id, other.id]

    def test_a_unique_job_is_new_again_after_the_results_were_cleared(self) -> None:
        ship.enqueue(1)
        self.backend.clear()

        assert ship.enqueue(1).is_new

    def test_a_taken_key_is_an_error_where_the_task_says_so(self) -> None:
        first = ship_once.enqueue(1)

        with pytest.raises(DuplicateJob) as caught:
            ship_once.enqueue_many([((2,), {}), ((1,), {})])

        assert caught.value.job_id == first.id
        assert [kept.id for kept in self.backend.results] == [first.id]

    def test_a_job_that_is_kept_takes_the_values_of_a_new_call_where_the_task_says_so(self) -> None:
        first = ship_latest.using(run_after=HOUR).enqueue(1, "a")

        second = ship_latest.using(priority=3).enqueue(1, note="b")

        (kept,) = self.backend.results
        assert (second.id, second.is_new, second.kwargs) == (first.id, False, {"note": "b"})
        assert (kept.args, kept.kwargs, kept.task.priority, kept.task.delay) == ([1], {"note": "b"}, 3, None)

    def test_a_receiver_may_enqueue_another_job(self) -> None:
        def receive(task_result: Any, **kwargs: Any) -> None:
            if task_result.args == [1]:
                ship.enqueue(2)

        task_enqueued.connect(receive)
        try:
            result = ship.enqueue(1)
        finally:
            task_enqueued.disconnect(receive)

        assert [kept.args for kept in self.backend.results] == [[1], [2]]
        assert self.backend.results[0] == result

    def test_an_explicit_key_is_shared_by_tasks(self) -> None:
        first = ship.using(unique_key="one").enqueue(1)

        second = ship_latest.using(unique_key="one").enqueue(2)

        assert (second.id, second.args, second.is_new) == (first.id, [1], False)


@pytest.mark.parametrize("settings_of_tasks", [IMMEDIATE, DUMMY], ids=["immediate", "dummy"])
def test_an_argument_that_a_job_cannot_hold_is_refused_in_tests_too(settings_of_tasks: Any) -> None:
    with override_settings(TASKS=settings_of_tasks):
        with pytest.raises(InvalidArgument, match=r"argument 1 \('a'\) cannot be stored as JSON"):
            tasks.add.enqueue(object())
        with pytest.raises(InvalidArgument, match=r"argument 1 \('a'\) cannot be stored as JSON"):
            tasks.add.enqueue_many([((object(),), {})])
        assert do.enqueue(returning(1)).args[0].startswith("<lambda>")


@pytest.mark.parametrize("settings_of_tasks", [IMMEDIATE, DUMMY], ids=["immediate", "dummy"])
def test_a_call_of_which_no_key_can_be_made_is_refused_in_tests_too(settings_of_tasks: Any) -> None:
    with (
        override_settings(TASKS=settings_of_tasks),
        pytest.raises(InvalidArgument, match="missing a required argument"),
    ):
        ship.enqueue()
