"""Arguments: what JSON and every database can hold is stored, all else refused by the argument's name."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType

from django_jobs.exceptions import InvalidArgument, JobsError
from django_jobs.models import Job

from . import tasks
from .rows import row


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def nested_dict(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"": value}
    return value


BAD = [
    pytest.param(object(), "Unsupported type", id="object"),
    pytest.param(datetime(2030, 1, 1, tzinfo=UTC), "Unsupported type", id="datetime"),
    pytest.param(uuid.uuid4(), "Unsupported type", id="uuid"),
    pytest.param(Decimal("1.5"), "Unsupported type", id="decimal"),
    pytest.param({1, 2}, "Unsupported type", id="set"),
    pytest.param({"a": [{"b": {3}}]}, "Unsupported type", id="deep inside"),
    pytest.param(b"\xff", "Unsupported value", id="bytes"),
    pytest.param(float("nan"), "nan is not a JSON number", id="NaN"),
    pytest.param(float("-inf"), "-inf is not a JSON number", id="infinity"),
    pytest.param([1, {"a": float("inf")}], "inf is not a JSON number", id="infinity inside"),
    pytest.param("a\x00b", "it contains a NUL character", id="NUL"),
    pytest.param({"a\x00": 1}, "it contains a NUL character", id="NUL in a key"),
    pytest.param("\ud800", "it contains a lone surrogate", id="surrogate"),
    pytest.param(10**5000, "Exceeds the limit", id="huge number"),
    pytest.param({(1, 2): 3}, "unhashable", id="tuple as a key"),
    pytest.param(nested(100_000), "it is nested too deeply", id="nested"),
    pytest.param(nested(101), "it is nested too deeply", id="nested a little too deeply"),
    pytest.param(nested_dict(101), "it is nested too deeply", id="dicts nested a little too deeply"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_positional_argument_that_json_cannot_hold_is_refused_by_place_and_name(value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        tasks.add.enqueue(1, value)

    assert str(caught.value).startswith("argument 2 ('b') cannot be stored as JSON: ")
    assert reason in str(caught.value)
    assert Job.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_keyword_argument_that_json_cannot_hold_is_refused_by_name(value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        tasks.add.enqueue(a=1, b=value)

    assert str(caught.value).startswith("argument 'b' cannot be stored as JSON: ")
    assert reason in str(caught.value)
    assert Job.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_note_that_json_cannot_hold_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument, match="^meta cannot be stored as JSON: "):
        tasks.noop.using(meta={"note": value}).enqueue()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["a\x00", "\ud800"])
def test_an_argument_with_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="^the name '.*' of an argument cannot be stored"):
        tasks.noop.enqueue(**{name: 1})


@pytest.mark.django_db
def test_the_context_is_not_counted_among_the_arguments() -> None:
    with pytest.raises(InvalidArgument, match=r"^argument 1 \('subject'\) "):
        tasks.tell_attempt.enqueue(object())


def test_a_model_instance_is_refused_with_the_advice_to_pass_its_key() -> None:
    with pytest.raises(InvalidArgument, match="Pass its primary key and load it in the task."):
        tasks.noop.enqueue(ContentType(pk=1))


def test_the_error_is_of_our_tree_and_what_django_documents() -> None:
    assert issubclass(InvalidArgument, JobsError)
    assert issubclass(InvalidArgument, TypeError)


@pytest.mark.django_db
def test_arguments_over_the_limit_are_refused_with_the_largest_named(settings: Any) -> None:
    settings.DJANGO_JOBS = {"MAX_ARGUMENT_BYTES": 100}

    with pytest.raises(InvalidArgument) as caught:
        tasks.add.enqueue("x" * 40, b="y" * 60)

    assert "more than MAX_ARGUMENT_BYTES (100). The largest is argument b (62 bytes)" in str(caught.value)
    assert Job.objects.count() == 0


@pytest.mark.django_db
def test_arguments_up_to_the_limit_are_stored() -> None:
    text = "x" * (1024 * 1024 - 2)

    result = tasks.noop.enqueue(text)

    assert row(result.id).args == [text]


@pytest.mark.django_db
def test_what_json_can_hold_is_stored_as_json_holds_it() -> None:
    result = tasks.noop.enqueue((1, 2.5, None, True), {"ключ": ["ü", "😀", b"bytes"]}, "", -(10**30))

    expected = [[1, 2.5, None, True], {"ключ": ["ü", "😀", "bytes"]}, "", -(10**30)]
    assert row(result.id).args == expected
    assert result.args == expected
