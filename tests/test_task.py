"""Declaring tasks: options, names, copies, and the table of declared tasks."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_jobs import task
from django_jobs.compat import DjangoTask, InvalidTask
from django_jobs.exceptions import UnknownTask
from django_jobs.task import Task, declared_tasks, discover_tasks, find_task, path_of, withdraw

from . import tasks


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, DjangoTask]]:
    """The table of declared tasks, put back as it was at the end."""
    # The package's attribute of this name is the decorator.
    module = sys.modules["django_jobs.task"]
    copied = dict(module._declared)
    monkeypatch.setattr(module, "_declared", copied)
    return copied


def function(name: str = "work", module: str = __name__, signature: str = "*args, **kwargs") -> Any:
    """Return a fresh function that looks as if it stood at the top of a module."""
    namespace: dict[str, Any] = {"__name__": module}
    exec(f"def {name}({signature}): pass", namespace)
    return namespace[name]


# Declaring


def test_a_task_made_by_the_bare_decorator_has_the_defaults() -> None:
    assert isinstance(tasks.noop, Task)
    assert (tasks.noop.queue_name, tasks.noop.priority, tasks.noop.max_attempts) == ("default", 0, 3)
    assert tasks.noop.path == "tests.tasks.noop"
    assert tasks.noop.name == "noop"


def test_options_of_the_decorator_are_kept() -> None:
    assert (tasks.send_mail.queue_name, tasks.send_mail.priority, tasks.send_mail.max_attempts) == ("mail", 5, 7)
    assert tasks.report.meta == {"team": "sales"}


def test_max_attempts_comes_from_the_settings_where_the_task_says_nothing(settings: Any, table: Any) -> None:
    settings.DJANGO_JOBS = {"MAX_ATTEMPTS": 11}

    assert task(function()).max_attempts == 11


def test_one_exception_class_does_for_retry_on_and_ignore_on(table: Any) -> None:
    made = task(retry_on=OSError, ignore_on=FileNotFoundError)(function())

    assert (made.retry_on, made.ignore_on) == ((OSError,), (FileNotFoundError,))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number between 1 and 32767, not 0"),
        ({"max_attempts": True}, "max_attempts must be a whole number between 1 and 32767, not True"),
        ({"max_attempts": "3"}, "max_attempts must be a whole number between 1 and 32767, not '3'"),
        ({"max_attempts": 40000}, "max_attempts must be a whole number between 1 and 32767, not 40000"),
        ({"backoff": 5}, "backoff must be callable, not 5. For a constant use retries.fixed(seconds)."),
        ({"retry_on": "ValueError"}, "retry_on takes exception classes, not 'V'"),
        ({"retry_on": 5}, "retry_on takes exception classes, not 5"),
        ({"ignore_on": [ValueError, 5]}, "ignore_on takes exception classes, not 5"),
        ({"ignore_on": int}, "ignore_on takes exception classes, not <class 'int'>"),
        ({"name": " "}, "a name is a text of 1 to 255 characters, not ' '"),
        ({"name": "x" * 256}, "a name is a text of 1 to 255 characters"),
        ({"name": "a\x00b"}, r"a name is a text of 1 to 255 characters, not 'a\x00b'"),
        ({"name": 5}, "a name is a text of 1 to 255 characters, not 5"),
        ({"aliases": [""]}, "a name is a text of 1 to 255 characters, not ''"),
        ({"aliases": 5}, "a name is a text of 1 to 255 characters, not 5"),
        ({"meta": ["team"]}, "meta is a dict, not ['team']"),
        ({"priority": 101}, "priority must be a whole number between -100 and 100."),
        ({"priority": 1.5}, "priority must be a whole number between -100 and 100."),
        ({"queue_name": ""}, "The name of a queue is a text of 1 to 100 characters, not ''"),
        ({"queue_name": "q" * 101}, "The name of a queue is a text of 1 to 100 characters"),
        ({"queue_name": "a\x00"}, "The name of a queue is a text of 1 to 100 characters"),
        ({"queue_name": "\ud800"}, "The name of a queue is a text of 1 to 100 characters"),
        ({"queue_name": 5}, "The name of a queue is a text of 1 to 100 characters, not 5"),
        ({"takes_context": True}, "does not have a first argument of 'context'"),
    ],
)
def test_an_option_that_cannot_work_is_refused_by_name(table: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        task(**options)(function(signature="a"))

    assert problem in str(caught.value)


def test_a_function_inside_another_is_refused() -> None:
    def inner() -> None: ...

    with pytest.raises(InvalidTask, match="must be defined at a module level"):
        task(inner)


@pytest.mark.parametrize("unknown", [{"priorty": 5}, {"run_after": datetime(2030, 1, 1, tzinfo=UTC)}])
def test_an_unknown_option_is_refused(unknown: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(unknown))):
        task(**unknown)(function())


# Copies


def test_using_returns_a_copy_with_the_changes_and_leaves_the_task_alone() -> None:
    later = datetime(2030, 1, 1, tzinfo=UTC)

    changed = tasks.report.using(
        priority=7,
        queue_name="slow",
        run_after=later,
        max_attempts=1,
        meta={"team": "ops"},
        unique_key="report",
    )

    assert (changed.priority, changed.queue_name, changed.run_after) == (7, "slow", later)
    assert (changed.max_attempts, changed.meta, changed.unique_key) == (1, {"team": "ops"}, "report")
    assert changed.backoff is tasks.report.backoff
    assert (tasks.report.priority, tasks.report.run_after, tasks.report.unique_key) == (0, None, None)


def test_using_nothing_is_an_equal_copy() -> None:
    assert tasks.report.using() == tasks.report
    assert tasks.report.using() is not tasks.report


def test_the_last_of_two_run_afters_counts() -> None:
    later, wait = datetime(2030, 1, 1, tzinfo=UTC), timedelta(minutes=5)

    assert (tasks.noop.using(run_after=later).using(run_after=wait).run_after) is None
    assert (tasks.noop.using(run_after=wait).using(run_after=later).delay) is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"run_after": datetime(2030, 1, 1)}, "run_after must be an aware datetime."),
        ({"run_after": timedelta(days=400)}, "run_after: A delay lies between 0 and"),
        ({"unique_key": ""}, "unique_key is a text of 1 to 255 characters, not ''"),
        ({"unique_key": "k" * 256}, "unique_key is a text of 1 to 255 characters"),
        ({"unique_key": "a\x00"}, "unique_key is a text of 1 to 255 characters"),
        ({"unique_key": 5}, "unique_key is a text of 1 to 255 characters, not 5"),
        ({"priority": -101}, "priority must be a whole number between -100 and 100."),
        ({"max_attempts": 0}, "max_attempts must be a whole number"),
    ],
)
def test_using_refuses_what_cannot_work(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        tasks.noop.using(**options)

    assert problem in str(caught.value)


def test_a_task_survives_pickling_with_what_using_changed() -> None:
    changed = tasks.send_receipt.using(priority=9, run_after=timedelta(hours=1), meta={"a": 1})

    assert pickle.loads(pickle.dumps(changed)) == changed
    assert copy.deepcopy(changed) == changed


def test_a_pickled_task_that_is_no_longer_declared_is_refused(table: dict[str, Any]) -> None:
    pickled = pickle.dumps(task(function("gone")))
    del table[f"{__name__}.gone"]

    with pytest.raises(UnknownTask, match="gone"):
        pickle.loads(pickled)


def test_tasks_can_be_kept_in_sets_and_dicts() -> None:
    assert len({tasks.report, tasks.report.using(), tasks.report.using(priority=1)}) == 2


# Calling


def test_a_task_can_be_called_in_place() -> None:
    assert tasks.add.call(1, b=2) == 3
    assert tasks.add_async.call(1, 2) == 3


# The table


def test_a_task_is_found_by_its_path() -> None:
    assert find_task("tests.tasks.noop") is tasks.noop


@pytest.mark.parametrize("name", ["orders.receipt", "orders.mail_receipt", "shop.tasks.receipt"])
def test_a_task_is_found_by_its_name_and_by_each_alias(name: str) -> None:
    assert find_task(name) is tasks.send_receipt


def test_a_named_task_is_still_found_by_the_path_of_its_function() -> None:
    assert find_task("tests.tasks.send_receipt") is tasks.send_receipt


def test_a_copy_does_not_take_the_place_of_the_declaration() -> None:
    tasks.noop.using(priority=50)

    assert find_task("tests.tasks.noop") is tasks.noop


def test_a_task_of_a_reloaded_module_takes_the_place_of_the_old_one(table: Any) -> None:
    task(name="one")(function())
    reloaded = task(name="one")(function())

    assert find_task("one") is reloaded


def test_a_task_made_by_djangos_decorator_is_declared_too() -> None:
    assert find_task("tests.tasks.made_by_django") is tasks.made_by_django
    assert path_of(tasks.made_by_django) == "tests.tasks.made_by_django"


@pytest.mark.parametrize("second", [{"name": "same"}, {"aliases": ["same"]}])
def test_two_functions_cannot_have_one_name(table: dict[str, Any], second: dict[str, Any]) -> None:
    task(name="same")(function("first"))

    with pytest.raises(InvalidTask, match=r"The name 'same' of task .*second belongs to .*first already"):
        task(**second)(function("second"))

    assert f"{__name__}.second" not in table


@pytest.mark.parametrize(
    "path",
    ["os.system", "tests.tasks", "tests.tasks.missing", "tests.tasks.task", "no.such.module", "noop", "", ".", "a.b."],
)
def test_what_is_no_declared_task_is_not_found(path: str) -> None:
    with pytest.raises(UnknownTask, match="is not a declared task"):
        find_task(path)


def test_looking_for_a_task_imports_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_imported.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UnknownTask):
        find_task("never_imported.work")

    assert "never_imported" not in sys.modules


def test_an_unknown_task_comes_with_the_closest_declared_one_and_where_to_declare_it() -> None:
    with pytest.raises(UnknownTask) as caught:
        find_task("tests.tasks.send_mial")

    assert "Did you mean 'tests.tasks.send_mail'?" in str(caught.value)
    assert "Declare it with @task in a module that DJANGO_JOBS['TASK_MODULES'] names (tasks, jobs)" in str(caught.value)


def test_the_declared_tasks_are_listed_once_each_by_path() -> None:
    declared = declared_tasks()

    assert declared["orders.receipt"] is tasks.send_receipt
    assert "orders.mail_receipt" not in declared
    assert list(declared) == sorted(declared)


def test_the_task_modules_of_every_installed_app_are_imported(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "errands.py").write_text("found = True")
    monkeypatch.setattr(sys.modules["tests"], "__path__", [*sys.modules["tests"].__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tests.errands", raising=False)
    settings.DJANGO_JOBS = {"TASK_MODULES": ["errands"]}

    discover_tasks()

    assert sys.modules["tests.errands"].found is True


def test_a_declaration_can_be_taken_back_with_all_its_names() -> None:
    declared = task(name="for.a.while", aliases=["of.old"])(tasks.noop.func)

    withdraw(declared)

    for name in ("for.a.while", "of.old"):
        with pytest.raises(UnknownTask):
            find_task(name)
    assert find_task("tests.tasks.noop") is tasks.noop
