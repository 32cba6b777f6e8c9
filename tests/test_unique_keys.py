"""Unique keys: of which calls they are the same, and what a task may say of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_jobs import task
from django_jobs.arguments import clean_arguments
from django_jobs.compat import InvalidTask
from django_jobs.context import JobContext
from django_jobs.exceptions import InvalidArgument
from django_jobs.models import Job
from django_jobs.options import LONGEST_KEY
from django_jobs.task import find_task, withdraw
from django_jobs.unique import key_of

from . import tasks, unique_tasks
from .rows import row

Call = tuple[tuple[Any, ...], dict[str, Any]]


def call(*args: Any, **kwargs: Any) -> Call:
    return args, kwargs


def key(its_task: Any, *args: Any, **kwargs: Any) -> str | None:
    """Return the key of a call as enqueueing makes it."""
    return key_of(its_task, *clean_arguments(its_task, args, kwargs))


def declared(function: Callable[..., Any], **options: Any) -> Any:
    """Declare a task for one test; its name is free again."""
    made = task(**options)(function)
    withdraw(made)
    return made


def with_default(value: Any) -> Any:
    def function(a: int, b: Any = value) -> None: ...

    function.__qualname__ = "function"
    return declared(function, unique=True)


# Which calls are the same


@pytest.mark.parametrize(
    "spelled",
    [
        call("a"),
        call(path="a"),
        call("a", "all"),
        call("a", mode="all"),
        call(mode="all", path="a"),
        call("a", depth=0),
        call("a", "all", depth=0),
    ],
    ids=str,
)
def test_however_a_call_is_spelled_its_key_is_the_same(spelled: Call) -> None:
    assert key(unique_tasks.import_file, *spelled[0], **spelled[1]) == key(unique_tasks.import_file, "a")


OTHERS = [
    call("a"),
    call("b"),
    call("a", "some"),
    call("a", "all", 1),
    call("a", "all", 1, 2),
    call("a", "all", 2, 1),
    call("a", depth=1),
    call("a", depth=True),
    call("a", depth=1.0),
    call("a", depth="1"),
    call("a", depth=None),
    call("a", depth=[]),
    call("a", depth={}),
    call("a", depth={"x": 1}),
    call("a", depth={"x": None}),
    call("a", depth=0.1),
    call("a", other=0),
    call("a", other=1),
    call("a", rest={"other": 0}),
    call(""),
    call("ä"),
    call("a\u0308"),
    call("鍵"),
    call("a:all"),
    call("a", '","'),
]


def test_calls_with_other_arguments_have_other_keys() -> None:
    keys = {key(unique_tasks.import_file, *args, **kwargs) for args, kwargs in OTHERS}

    assert len(keys) == len(OTHERS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"x": 1, "y": {"b": [1, {"d": 0.5, "c": None}], "a": 2}},
            {"y": {"a": 2, "b": [1, {"c": None, "d": 0.5}]}, "x": 1},
        ),
        ((1, (2, "x")), [1, [2, "x"]]),
        (b"text", "text"),
        ({1: "a", 2: "b"}, {"2": "b", "1": "a"}),
    ],
    ids=["order of names", "tuples", "bytes", "names that are no texts"],
)
def test_arguments_that_are_stored_the_same_are_the_same(one: Any, other: Any) -> None:
    assert key(unique_tasks.import_file, one) == key(unique_tasks.import_file, other)


def test_lists_in_another_order_are_other_arguments() -> None:
    assert key(unique_tasks.import_file, [1, 2]) != key(unique_tasks.import_file, [2, 1])


def test_the_same_call_of_another_task_has_another_key() -> None:
    keys = [key(each, "a") for each in (unique_tasks.import_file, unique_tasks.import_folder)]

    assert keys[0] != keys[1]
    assert [text.partition(":")[0] for text in keys if text] == [
        "tests.unique_tasks.import_file",
        "tests.unique_tasks.import_folder",
    ]


def test_the_context_of_a_job_is_no_argument() -> None:
    assert key(unique_tasks.tell) == key(unique_tasks.tell, "weather") == key(unique_tasks.tell, subject="weather")


@pytest.mark.parametrize("default", [datetime(2040, 1, 1, tzinfo=UTC), object(), float("nan"), {1, 2}])
def test_a_default_that_json_cannot_hold_is_left_out(default: Any) -> None:
    its_task = with_default(default)

    assert key(its_task, 1) == key(its_task, a=1)
    assert key(its_task, 1, None) != key(its_task, 1)


@pytest.mark.parametrize("default", [(1, 2), b"x", {"a": ("b",)}, 0.1, None])
def test_a_default_is_the_same_as_its_value_given(default: Any) -> None:
    its_task = with_default(default)

    assert key(its_task, 1) == key(its_task, 1, default) == key(its_task, b=default, a=1)


@pytest.mark.parametrize(
    ("spelled", "problem"),
    [
        (call(), "missing a required argument: 'order_id'"),
        (call(1, "a", "b"), "too many positional arguments"),
        (call(1, wrong=2), "got an unexpected keyword argument 'wrong'"),
        (call(1, order_id=1), "multiple values for argument 'order_id'"),
    ],
)
@pytest.mark.django_db
def test_a_call_that_does_not_fit_the_function_is_refused(spelled: Call, problem: str) -> None:
    args, kwargs = spelled

    with pytest.raises(InvalidArgument, match=rf"Task tests\.unique_tasks\.ship cannot be called .*{problem}"):
        unique_tasks.ship.enqueue(*args, **kwargs)
    with pytest.raises(InvalidArgument, match=problem):
        unique_tasks.ship.enqueue_many([((1,), {}), spelled])
    assert Job.objects.count() == 0


# Some arguments only


def test_only_the_named_arguments_count() -> None:
    same = [key(unique_tasks.ship, 1), key(unique_tasks.ship, 1, "x"), key(unique_tasks.ship, note="y", order_id=1)]

    assert len(set(same)) == 1
    assert key(unique_tasks.ship, 2) not in same


def test_a_named_argument_may_be_one_of_those_that_the_function_takes_by_any_name() -> None:
    keys = [
        key(unique_tasks.bill, 1, tenant="a", note="x"),
        key(unique_tasks.bill, order_id=1, tenant="a", note="y"),
        key(unique_tasks.bill, 1, tenant="b"),
        key(unique_tasks.bill, 1),
        key(unique_tasks.bill, 1, tenant=None),
    ]

    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_the_order_in_which_arguments_are_named_does_not_matter() -> None:
    def function(a: int, b: int) -> None: ...

    function.__qualname__ = "function"
    made = [declared(function, unique=names) for names in (("a", "b"), ["b", "a"], {"a", "b"}, ("b", "a", "a"))]

    assert len({key(each, 1, 2) for each in made}) == 1


def test_one_name_may_be_given_as_a_text() -> None:
    def function(order_id: int, note: str = "") -> None: ...

    function.__qualname__ = "function"
    its_task = declared(function, unique="order_id")

    assert key(its_task, 1, "x") == key(its_task, 1)


# A callable


@pytest.mark.django_db
def test_a_callable_makes_the_key_of_the_jobs_arguments_and_the_task() -> None:
    first = unique_tasks.settle.enqueue({"number": "A-1"}, by="x")
    second = unique_tasks.settle.enqueue(order={"number": "A-1", "sum": 2})
    third = unique_tasks.settle.enqueue({"number": "A-2"})

    assert (second.id, second.is_new) == (first.id, False)
    assert third.is_new
    assert row(first.id).unique_key == "tests.unique_tasks.settle:A-1"


@pytest.mark.django_db
def test_a_job_for_which_the_callable_returns_none_is_not_unique() -> None:
    results = [unique_tasks.settle.enqueue({}), unique_tasks.settle.enqueue({})]
    results += unique_tasks.settle.enqueue_many([(({},), {}), (({"number": "A-1"},), {}), (({},), {})])

    assert len({result.id for result in results}) == 5
    assert [row(result.id).unique_key for result in results if row(result.id).unique_key] == [
        "tests.unique_tasks.settle:A-1"
    ]


@pytest.mark.django_db
def test_a_callable_cannot_change_what_is_enqueued() -> None:
    def function(values: list[int]) -> None: ...

    function.__qualname__ = "function"

    def spoil(values: list[int]) -> str:
        values.append(1)
        return "x"

    result = declared(function, unique=spoil).enqueue([0])

    assert row(result.id).args == result.args == [[0]]


def test_a_callable_that_does_not_take_the_arguments_is_refused_with_them() -> None:
    def function(number: int) -> None: ...

    function.__qualname__ = "function"

    with pytest.raises(InvalidArgument, match=r"unique of task \S+ cannot be made of the arguments \[7\]"):
        declared(function, unique=lambda: "x").enqueue(7)


@pytest.mark.parametrize("returned", ["", "  ", 5, b"x", True, ["a"]], ids=repr)
def test_a_callable_that_returns_no_text_is_refused(returned: Any) -> None:
    def function() -> None: ...

    function.__qualname__ = "function"

    with pytest.raises(InvalidArgument, match=r"unique of task .* returned .*a text that is not empty, or None"):
        key(declared(function, unique=lambda: returned))


@pytest.mark.parametrize(
    "text", ["x" * 5000, "a\x00b", "\ud800", "ключ" * 200], ids=["long", "NUL", "surrogate", "unicode"]
)
@pytest.mark.django_db
def test_a_made_text_that_no_column_could_hold_becomes_a_digest(text: str) -> None:
    def function(number: int) -> None: ...

    function.__qualname__ = "function"
    its_task = declared(function, unique=lambda number: text + str(number % 2))

    results = [its_task.enqueue(number) for number in range(3)]

    assert results[0].id == results[2].id != results[1].id
    assert len(row(results[0].id).unique_key or "") <= LONGEST_KEY


def test_tasks_whose_names_have_colons_or_are_long_share_no_key() -> None:
    def function() -> None: ...

    function.__qualname__ = "function"
    keys = [
        key(declared(function, name=name, unique=lambda text=text: text))
        for name, text in [
            ("a", "b:c"),
            ("a:b", "c"),
            ("a%3Ab", "c"),
            ("a", "b%3Ac"),
            ("n" * 254 + "x", "c"),
            ("n" * 254 + "y", "c"),
            (":" * 255, "c"),
        ]
    ]

    assert len(set(keys)) == len(keys)
    assert all(len(each or "") <= LONGEST_KEY for each in keys)


# Explicit keys, names, copies


@pytest.mark.django_db
def test_an_explicit_key_is_stored_as_it_is_and_shared_by_tasks() -> None:
    first = unique_tasks.ship.using(unique_key="order 1").enqueue(1)
    second = unique_tasks.import_file.using(unique_key="order 1").enqueue("a")
    third = unique_tasks.ship.enqueue(1)

    assert row(first.id).unique_key == "order 1"
    assert (second.id, second.is_new, second.args) == (first.id, False, [1])
    assert third.is_new


def test_a_key_has_the_registered_name_of_the_task_by_whatever_name_it_is_found() -> None:
    by_alias = find_task("shop.close")

    assert key(by_alias, "monday") == key(unique_tasks.close, day="monday")
    assert (key(by_alias, "monday") or "").startswith("shop%3A close %25:")


@pytest.mark.parametrize("its_task", [unique_tasks.settle, unique_tasks.index], ids=["callable", "names"])
def test_a_pickled_task_makes_the_same_keys(its_task: Any) -> None:
    arguments = ({"number": "x"},)

    copied = pickle.loads(pickle.dumps(its_task.using(priority=3)))

    assert key(copied, *arguments) == key(its_task, *arguments)
    assert (copied.priority, copied.unique_for, copied.on_conflict) == (3, its_task.unique_for, its_task.on_conflict)


@pytest.mark.django_db
def test_tasks_made_by_djangos_own_decorator_are_not_unique() -> None:
    results = [tasks.made_by_django.enqueue(1) for _ in range(2)]

    assert len({result.id for result in results}) == 2
    assert [row(result.id).unique_key for result in results] == [None, None]


# What a task may say


def takes_two(order_id: int, note: str = "") -> None:
    """Be declared in many ways."""


def takes_context(context: JobContext, order_id: int) -> None:
    """Be declared in many ways, too."""


async def makes_a_key(*args: Any) -> str:
    return "x"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"unique": ("order", "note")}, r"unique names an argument 'order', .* It takes: order_id, note\."),
        ({"unique": "order"}, r"unique names an argument 'order'"),
        ({"unique": ()}, r"unique names no argument\. For one job at a time .*unique=lambda"),
        ({"unique": 5}, r"unique is True, names of arguments or a callable, not 5"),
        ({"unique": ["order_id", 5]}, r"unique is True, names of arguments or a callable"),
        ({"unique": makes_a_key}, r"unique must be a plain function"),
        ({"unique": True, "unique_for": 0}, r"unique_for must be more than 0 seconds"),
        ({"unique": True, "unique_for": -1}, r"unique_for: A delay lies between 0"),
        ({"unique": True, "unique_for": timedelta(days=1000)}, r"unique_for: A delay lies between 0"),
        ({"unique": True, "unique_for": "1h"}, r"unique_for: A delay is a number of seconds or a timedelta, not '1h'"),
        ({"unique": True, "on_conflict": "skip"}, r"on_conflict is one of 'return', 'raise', 'replace', not 'skip'"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_when_the_task_is_declared(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidTask, match=rf"Task tests\.test_unique_keys\.takes_two: {problem}"):
        task(**options)(takes_two)


def test_the_context_cannot_be_named() -> None:
    with pytest.raises(InvalidTask, match=r"'context', which the function does not take\. It takes: order_id\."):
        task(takes_context=True, unique=("context",))(takes_context)


@pytest.mark.parametrize("given", [None, False])
def test_a_task_without_the_option_is_not_unique(given: Any) -> None:
    its_task = declared(takes_two, unique=given)

    assert its_task.unique is False
    assert key(its_task, 1) is None


def test_a_period_is_a_number_of_seconds_or_a_timedelta() -> None:
    assert unique_tasks.index.unique_for == unique_tasks.remind.unique_for == timedelta(hours=1)
