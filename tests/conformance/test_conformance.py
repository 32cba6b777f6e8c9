"""Which of Django's own tests run on which of our backends; see the package's docstring."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings

from django_jobs.backend import JobsBackend
from django_jobs.compat import (
    PACKAGE,
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
)
from django_jobs.models import Job
from django_jobs.testing import DummyBackend, ImmediateBackend

from ..compat import default_task_backend
from .fetch import NotFetched, fetch

JOBS = "django_jobs.backend.JobsBackend"
AT_ONCE = "tests.conformance.backends.RunAtOnceBackend"
OUR_IMMEDIATE = "django_jobs.testing.ImmediateBackend"
OUR_DUMMY = "django_jobs.testing.DummyBackend"


try:
    FOLDER, PROBLEM = fetch(), ""
    sys.path.insert(0, str(FOLDER))
except NotFetched as error:
    FOLDER, PROBLEM = None, str(error)


def djangos(name: str) -> ModuleType | None:
    """Return a module of Django's tests; None if they could not be had, which fails below."""
    if FOLDER is None:
        return None
    # A failed attempt ends the job: Django's tests know no retries.
    with override_settings(DJANGO_JOBS={"MAX_ATTEMPTS": 1}):
        return importlib.import_module(f"tasks.{name}")


test_tasks = djangos("test_tasks")
test_dummy = djangos("test_dummy_backend")
test_immediate = djangos("test_immediate_backend")
test_custom = djangos("test_custom_backend")


def case(module: ModuleType | None, name: str) -> Any:
    """Return a TestCase of Django's, as a base class; an empty one where it is missing."""
    return getattr(module, name, None) or type("Missing", (), {})


def without(reasons: dict[str, str]) -> Any:
    """Leave tests out of a class, each for a reason. A name that Django's class does not have is a mistake."""

    def leave_out(cls: Any) -> Any:
        for name in reasons:
            if FOLDER is not None and not hasattr(cls, name):
                raise AttributeError(f"{cls.__name__} has no {name} to leave out.")
            setattr(cls, name, None)
        return cls

    return leave_out


def test_djangos_own_tests_are_here() -> None:
    if PROBLEM:
        pytest.fail(PROBLEM, pytrace=False)


# One failure says it all.
needs_djangos_tests = pytest.mark.skipif(FOLDER is None, reason="test_djangos_own_tests_are_here has failed")

SYNC_IN_ASYNC = "calls the synchronous method on the event loop, which Django's ORM refuses; split in two below"
KEEPS_IN_MEMORY = "looks at DummyBackend.results; stated anew below"
OTHER_CLASS = "asserts the class of the backend; stated anew below"


# Tasks and results, on jobs


@needs_djangos_tests
@without(
    {
        "test_using_correct_backend": OTHER_CLASS,
        "test_get_backend": OTHER_CLASS,
        "test_enqueue_task": KEEPS_IN_MEMORY,
        "test_enqueue_task_async": KEEPS_IN_MEMORY,
        "test_refresh_result": SYNC_IN_ASYNC,
        "test_get_missing_result": SYNC_IN_ASYNC,
    }
)
@override_settings(
    TASKS={
        "default": {"BACKEND": JOBS, "QUEUES": ["default", "queue_1"]},
        "immediate": {"BACKEND": f"{PACKAGE}.backends.immediate.ImmediateBackend", "QUEUES": []},
        "missing": {"BACKEND": "does.not.exist"},
    }
)
class TasksOnJobs(case(test_tasks, "TaskTestCase"), TestCase):
    """Django's tests of Task and TaskResult."""

    def setUp(self) -> None:
        """Leave out Django's: there is nothing to clear, the database is empty."""

    @property
    def tasks(self) -> Any:
        return test_tasks.test_tasks

    def test_the_backend_is_ours(self) -> None:
        assert default_task_backend == task_backends["default"]
        assert isinstance(task_backends["default"], JobsBackend)

    def test_a_task_knows_its_backend(self) -> None:
        assert isinstance(self.tasks.noop_task.get_backend(), JobsBackend)
        assert not isinstance(self.tasks.noop_task.using(backend="immediate").get_backend(), JobsBackend)

    def test_enqueueing_stores_what_is_returned(self) -> None:
        for enqueue in (self.tasks.noop_task.enqueue, async_to_sync(self.tasks.noop_task.aenqueue)):
            result = enqueue()
            assert result.status == TaskResultStatus.READY
            assert result.task == self.tasks.noop_task
            assert (result.args, result.kwargs) == ([], {})
            assert default_task_backend.get_result(str(Job.objects.latest("pk").pk)) == result

    def test_refreshing_changes_nothing_where_nothing_happened(self) -> None:
        result = self.tasks.noop_task.enqueue()
        original = dataclasses.asdict(result)
        result.refresh()
        assert dataclasses.asdict(result) == original
        async_to_sync(result.arefresh)()
        assert dataclasses.asdict(result) == original

    def test_a_missing_result_is_missing(self) -> None:
        with pytest.raises(TaskResultDoesNotExist):
            self.tasks.noop_task.get_result("123")
        with pytest.raises(TaskResultDoesNotExist):
            async_to_sync(self.tasks.noop_task.aget_result)("123")


@needs_djangos_tests
@without(
    {
        "test_using_correct_backend": OTHER_CLASS,
        "test_enqueue_task": KEEPS_IN_MEMORY,
        "test_enqueue_task_async": KEEPS_IN_MEMORY,
        "test_refresh_result": "changes a result inside DummyBackend.results; tests/test_results.py changes the row",
        "test_refresh_result_async": "as test_refresh_result",
        "test_get_missing_result": SYNC_IN_ASYNC,
        "test_clear": "DummyBackend.clear() has no counterpart",
        "test_validate_on_enqueue": "names DummyBackend in TASKS; stated anew below",
        "test_validate_on_aenqueue": "names DummyBackend in TASKS; stated anew below",
    }
)
@override_settings(TASKS={"default": {"BACKEND": JOBS, "QUEUES": []}})
class DummyBackendsTestsOnJobs(case(test_dummy, "DummyBackendTestCase"), TestCase):
    """Django's tests of its dummy backend, which stores and does not run, as ours does without a worker."""

    def setUp(self) -> None:
        """Leave out Django's: there is nothing to clear, the database is empty."""

    def test_a_new_result_has_only_begun(self) -> None:
        for task in (test_dummy.test_tasks.noop_task, test_dummy.test_tasks.noop_task_async):
            for result in (task.enqueue(1, two=3), async_to_sync(task.aenqueue)(1, two=3)):
                assert result.status == TaskResultStatus.READY
                assert result.is_finished is False
                assert result.started_at is None
                assert result.last_attempted_at is None
                assert result.finished_at is None
                with self.assertRaisesMessage(ValueError, "Task has not finished yet"):
                    _ = result.return_value
                assert result.task == task
                assert (result.args, result.kwargs, result.attempts) == ([1], {"two": 3}, 0)

    def test_a_task_is_validated_again_when_it_is_enqueued(self) -> None:
        elsewhere = test_dummy.test_tasks.noop_task.using(queue_name="unknown_queue")
        with override_settings(TASKS={"default": {"BACKEND": JOBS, "QUEUES": ["queue-1"]}}):
            for enqueue in (elsewhere.enqueue, async_to_sync(elsewhere.aenqueue)):
                with self.assertRaisesMessage(InvalidTask, "Queue 'unknown_queue' is not valid for backend"):
                    enqueue()


@needs_djangos_tests
class TransactionsOfJobs(TransactionTestCase):
    """Restates DummyBackendTransactionTestCase, which looks at DummyBackend.results."""

    def test_enqueueing_does_not_wait_for_the_commit(self) -> None:
        with transaction.atomic():
            result = test_dummy.test_tasks.noop_task.enqueue()
            assert result.enqueued_at is not None
            assert Job.objects.count() == 1
        assert Job.objects.count() == 1


IMMEDIATE_ONLY = "asserts what the immediate backend cannot do, and ours can"


@needs_djangos_tests
@without(
    {
        "test_using_correct_backend": OTHER_CLASS,
        "test_throws_keyboard_interrupt": "a job that raises KeyboardInterrupt fails and does not stop its worker",
        "test_cannot_get_result": IMMEDIATE_ONLY,
        "test_cannot_refresh_result": IMMEDIATE_ONLY,
        "test_cannot_pass_run_after": IMMEDIATE_ONLY,
        "test_complex_return_value": "asserts the exact class; ours is a TypeError too and stated anew below",
        "test_validate_on_enqueue": "names ImmediateBackend in TASKS; stated anew for jobs above",
        "test_validate_on_aenqueue": "names ImmediateBackend in TASKS; stated anew for jobs above",
    }
)
@override_settings(TASKS={"default": {"BACKEND": AT_ONCE, "QUEUES": []}})
class ImmediateBackendsTestsOnJobs(case(test_immediate, "ImmediateBackendTestCase"), TestCase):
    """Django's tests of its immediate backend, on jobs that are stored, claimed, run, written and read again."""

    def test_a_return_value_that_json_cannot_hold_fails_the_job(self) -> None:
        result = test_immediate.test_tasks.complex_return_value.enqueue()
        assert result.status == TaskResultStatus.FAILED
        assert result.finished_at >= result.started_at
        assert issubclass(result.errors[0].exception_class, TypeError)
        assert "Unsupported type" in result.errors[0].traceback


# Our backends for tests, which stand in for Django's


@needs_djangos_tests
@without(
    {
        "test_using_correct_backend": OTHER_CLASS,
        "test_cannot_pass_run_after": "ours takes run_after, as jobs do, and does not wait for it",
    }
)
@override_settings(TASKS={"default": {"BACKEND": OUR_IMMEDIATE, "QUEUES": []}})
class OurImmediateBackend(case(test_immediate, "ImmediateBackendTestCase"), TestCase):
    def test_the_backend_is_ours(self) -> None:
        assert isinstance(task_backends["default"], ImmediateBackend)


@needs_djangos_tests
@override_settings(TASKS={"default": {"BACKEND": OUR_DUMMY, "QUEUES": []}})
class OurDummyBackend(case(test_dummy, "DummyBackendTestCase"), TestCase):
    def test_the_backend_is_ours(self) -> None:
        assert isinstance(task_backends["default"], DummyBackend)


# Everything else of Django's, as it is: our app changes nothing for other backends


@needs_djangos_tests
@without({"test_no_enqueue": "asserts words of Python 3.12"} if sys.version_info < (3, 12) else {})
class CustomBackends(case(test_custom, "CustomBackendTestCase"), TestCase):
    pass


@needs_djangos_tests
class CustomTasks(case(test_custom, "CustomTaskTestCase"), TestCase):
    """In Django 6.1 only."""
