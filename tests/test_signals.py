"""Which signals are worth their arguments: those that somebody would notice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.dispatch import Signal
from django.utils.log import RequireDebugFalse, RequireDebugTrue

from django_jobs.compat import LOG_RECEIVERS, framework_logger, task_enqueued, task_finished, task_started
from django_jobs.signals import is_heard, job_enqueued, job_succeeded

FRAMEWORK = [task_enqueued, task_started, task_finished]
NAMES = ["task_enqueued", "task_started", "task_finished"]


class Elsewhere(logging.Logger):
    """A logger that shows its records to somebody besides its handlers, as Sentry's integration makes of all."""

    def callHandlers(self, record: logging.LogRecord) -> None:
        """Tell them, whether or not a handler takes the record."""


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return the framework's logger, enabled for all levels; put it back afterwards."""
    before = framework_logger.handlers, framework_logger.level, framework_logger.propagate
    framework_logger.setLevel(logging.DEBUG)
    yield framework_logger
    framework_logger.handlers, framework_logger.propagate = before[0], before[2]
    framework_logger.setLevel(before[1])


def write_to(*handlers: logging.Handler) -> None:
    """Let the framework's logger write to these handlers only. Called by the test, as pytest adds its own before."""
    framework_logger.handlers, framework_logger.propagate = list(handlers), False


def handler(level: int = logging.NOTSET, *filters: Any) -> logging.Handler:
    made = logging.StreamHandler()
    made.setLevel(level)
    for condition in filters:
        made.addFilter(condition)
    return made


def receive(**kwargs: Any) -> None:
    """Do nothing."""


def test_a_signal_without_a_receiver_is_not_heard_and_with_one_it_is() -> None:
    before = is_heard(job_succeeded)
    job_succeeded.connect(receive)
    try:
        during = is_heard(job_succeeded)
    finally:
        job_succeeded.disconnect(receive)

    assert (before, during, is_heard(job_succeeded), is_heard(job_enqueued)) == (False, True, False, False)


@pytest.mark.parametrize("signal", FRAMEWORK, ids=NAMES)
def test_the_framework_has_one_receiver_and_it_is_the_one_that_we_know(signal: Signal, logger: logging.Logger) -> None:
    write_to()

    assert [entry[0][0] for entry in signal.receivers] == [id(LOG_RECEIVERS[signal].receiver)]
    assert not is_heard(signal)


@pytest.mark.parametrize("signal", FRAMEWORK, ids=NAMES)
def test_a_projects_receiver_beside_the_frameworks_is_heard(signal: Signal, logger: logging.Logger) -> None:
    write_to()
    signal.connect(receive)
    try:
        assert is_heard(signal)
    finally:
        signal.disconnect(receive)


@pytest.mark.parametrize("signal", FRAMEWORK, ids=NAMES)
def test_a_projects_receiver_in_place_of_the_frameworks_is_heard(signal: Signal, logger: logging.Logger) -> None:
    write_to()
    signal.disconnect(LOG_RECEIVERS[signal].receiver)
    assert not is_heard(signal)
    signal.connect(receive)
    try:
        assert is_heard(signal)
    finally:
        signal.disconnect(receive)
        signal.connect(LOG_RECEIVERS[signal].receiver)


@pytest.mark.parametrize("signal", FRAMEWORK, ids=NAMES)
@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL])
@pytest.mark.parametrize("failed", [False, True])
def test_what_is_said_to_be_heard_is_what_a_handler_gets(
    signal: Signal, level: int, failed: bool, logger: logging.Logger
) -> None:
    taken: list[logging.LogRecord] = []
    catching = handler(level)
    catching.emit = taken.append  # type: ignore[method-assign]
    write_to(catching)
    record_level = LOG_RECEIVERS[signal].on_failure if failed else LOG_RECEIVERS[signal].level
    by_handler = is_heard(signal, failed=failed)
    logger.log(record_level, "a record")
    caught, taken[:] = list(taken), []
    catching.setLevel(logging.NOTSET)
    logger.setLevel(level)
    by_logger = is_heard(signal, failed=failed)
    logger.log(record_level, "a record")

    assert by_handler == bool(caught) == (record_level >= level)
    assert by_logger == bool(taken) == (record_level >= level)


def test_a_handler_of_a_parent_hears_unless_the_logger_keeps_its_records(logger: logging.Logger) -> None:
    parent = logger.parent
    assert parent is not None
    taking = handler()
    write_to()
    parent.addHandler(taking)
    try:
        kept = is_heard(task_started)
        logger.propagate = True
        passed_on = is_heard(task_started)
    finally:
        parent.removeHandler(taking)

    assert (kept, passed_on) == (False, True)


@pytest.mark.parametrize("debug", [False, True])
def test_djangos_filters_are_asked_whether_debug_is_on(debug: bool, settings: Any, logger: logging.Logger) -> None:
    settings.DEBUG = debug

    write_to(handler(logging.INFO, RequireDebugTrue()))
    with_debug = is_heard(task_started)
    write_to(handler(logging.INFO, RequireDebugFalse()))
    without_debug = is_heard(task_started)

    assert (with_debug, without_debug) == (debug, not debug)


def test_any_other_filter_might_let_a_record_pass(logger: logging.Logger) -> None:
    write_to(handler(logging.INFO, lambda record: False))
    of_a_handler = is_heard(task_started)
    write_to(handler(logging.ERROR))
    refuse_all = logging.Filter("nobody")
    logger.addFilter(refuse_all)
    try:
        of_the_logger = is_heard(task_started)
    finally:
        logger.removeFilter(refuse_all)

    assert (of_a_handler, of_the_logger) == (True, True)


def test_a_handler_that_writes_nothing_does_not_hear(logger: logging.Logger) -> None:
    write_to(logging.NullHandler())

    assert not is_heard(task_started)


def test_without_a_handler_pythons_last_resort_hears_of_failures(logger: logging.Logger) -> None:
    write_to()

    assert not is_heard(task_finished)
    assert is_heard(task_finished, failed=True)


def test_somebody_who_looks_at_records_before_the_handlers_hears(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_to(handler(logging.ERROR))
    monkeypatch.setattr(logging.Logger, "callHandlers", Elsewhere.callHandlers)

    assert is_heard(task_started)
