"""What the history keeps of an exception: text that any database can store, and a fingerprint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import django_jobs
from django_jobs.outcomes import Failure
from django_jobs.worker.failures import LONGEST_MESSAGE, LONGEST_TRACEBACK, clean_text, describe_failure


def caught(body: Callable[[], Any]) -> BaseException:
    """Return the exception that the function raises."""
    try:
        body()
    except BaseException as error:
        return error
    raise AssertionError("It should have raised.")


def failure_of(error: BaseException) -> Failure:
    def body() -> None:
        raise error

    return describe_failure(caught(body))


# Text


def test_a_failure_names_the_class_and_the_text_of_the_exception() -> None:
    failure = failure_of(json.JSONDecodeError("no comma", "[1 2]", 3))

    assert failure.exception_class == "json.decoder.JSONDecodeError"
    assert failure.message == "no comma: line 1 column 4 (char 3)"


def test_the_traceback_shows_what_led_to_the_exception() -> None:
    def body() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("no order") from error

    failure = describe_failure(caught(body))

    assert "KeyError: 'missing'" in failure.traceback
    assert failure.traceback.endswith("ValueError: no order\n")


def test_notes_of_an_exception_are_in_the_traceback() -> None:
    error = ValueError("no")
    error.add_note("while importing row 7")

    assert "while importing row 7" in failure_of(error).traceback


def test_a_group_of_exceptions_is_kept_with_its_parts() -> None:
    failure = failure_of(ExceptionGroup("two", [ValueError("one"), OSError("other")]))

    assert failure.message == "two (2 sub-exceptions)"
    assert "ValueError: one" in failure.traceback
    assert "OSError: other" in failure.traceback


@pytest.mark.parametrize(
    ("text", "clean"), [("a\x00b", "a\ufffdb"), ("a\ud800b\udfff", "a?b?"), ("ä€\U0001f600", "ä€\U0001f600"), ("", "")]
)
def test_text_loses_only_what_databases_refuse(text: str, clean: str) -> None:
    assert clean_text(text) == clean


def test_a_long_message_is_cut_at_its_end_and_a_long_traceback_at_its_beginning() -> None:
    failure = failure_of(ValueError("first " + "x" * 5_000_000 + " last"))

    assert len(failure.message) == LONGEST_MESSAGE
    assert failure.message.startswith("first ")
    assert len(failure.traceback) <= LONGEST_TRACEBACK
    assert failure.traceback.endswith(" last\n")


def test_an_exception_that_was_never_raised_can_be_described() -> None:
    failure = describe_failure(ValueError("made by hand"))

    assert (failure.message, failure.traceback) == ("made by hand", "ValueError: made by hand\n")


def test_a_class_with_a_very_long_name_is_cut() -> None:
    cls = type("E" * 1000, (Exception,), {})

    assert len(failure_of(cls()).exception_class) == 255


class Deadly(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


def test_the_exceptions_own_code_cannot_get_out() -> None:
    failure = failure_of(Deadly())

    assert failure.exception_class == "tests.test_failures.Deadly"
    assert failure.message == "<str() of the exception raised KeyboardInterrupt>"


def test_a_cause_whose_text_cannot_be_had_does_not_hide_the_exception() -> None:
    error = ValueError("outer")
    error.__cause__ = Deadly()

    assert failure_of(error).traceback.endswith("ValueError: outer\n")


# Fingerprint


def parse(text: str) -> Any:
    return json.loads(text)


def read(text: str) -> Any:
    return json.loads(text)


def divide(number: int) -> float:
    if number:
        return 1 / 0
    return 1 // 0


def fingerprint_of(body: Callable[[], Any]) -> str:
    return describe_failure(caught(body)).fingerprint


def test_errors_of_one_class_from_one_function_have_one_fingerprint() -> None:
    assert fingerprint_of(lambda: divide(1)) == fingerprint_of(lambda: divide(0))


def test_the_text_of_an_error_does_not_change_its_fingerprint() -> None:
    assert fingerprint_of(lambda: parse("{")) == fingerprint_of(lambda: parse("[1 2"))


def test_errors_from_different_functions_have_different_fingerprints() -> None:
    assert fingerprint_of(lambda: parse("{")) != fingerprint_of(lambda: read("{"))


def test_errors_of_different_classes_have_different_fingerprints() -> None:
    assert fingerprint_of(lambda: parse("{")) != fingerprint_of(lambda: parse(None))


def test_an_error_without_a_traceback_has_a_fingerprint() -> None:
    assert len(describe_failure(ValueError()).fingerprint) == 32


def test_a_project_beside_ours_with_a_name_that_begins_as_ours_counts_as_the_project() -> None:
    package = Path(django_jobs.__file__).parent
    functions: dict[str, Any] = {"__name__": "shop"}
    for name in ("first", "second"):
        code = compile(f"def {name}(): return int('x')", f"{package}_shop/tasks.py", "exec")
        exec(code, functions)

    assert fingerprint_of(functions["first"]) != fingerprint_of(functions["second"])
