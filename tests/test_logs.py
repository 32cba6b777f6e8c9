"""How ``runworker`` writes its log: text for people, JSON for machines, and a project's own handlers before both."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from io import StringIO

import pytest

from django_jobs.logs import JsonFormatter, configure_logging
from django_jobs.worker.announcer import announce

from .attempts import claimed_job, run
from .worker_tasks import do, doing, raising


@pytest.fixture
def ours() -> Iterator[logging.Logger]:
    """Return our logger, as where the project configures no logging; put it and the root back afterwards."""
    loggers = [logging.getLogger("django_jobs"), logging.getLogger()]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    loggers[0].handlers = []
    loggers[0].setLevel(logging.NOTSET)
    loggers[0].propagate = True
    yield loggers[0]
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def stderr(ours: logging.Logger, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return a function that returns what has been written to standard error since it was last asked."""
    return lambda: capsys.readouterr().err


def configure(log_format: str, verbosity: int = 1, root: tuple[logging.Handler, ...] = ()) -> None:
    """Configure the log where the project has these handlers of its own, and pytest has none."""
    logging.getLogger().handlers = list(root)
    configure_logging(log_format, verbosity)


def lines(stderr: Callable[[], str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in stderr().splitlines()]


# JSON


def test_a_json_line_says_when_where_and_what(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("json")

    ours.warning("Queue %r\nis paused.", "mail")

    (line,) = lines(stderr)
    moment = datetime.fromisoformat(str(line.pop("time")))
    assert moment.utcoffset() is not None
    assert line == {
        "level": "warning",
        "logger": "django_jobs",
        "message": "Queue 'mail'\nis paused.",
        "process": os.getpid(),
    }


def test_an_exception_is_in_the_json_line(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("json")

    try:
        raise ValueError("bad")
    except ValueError:
        ours.exception("It failed.")

    (line,) = lines(stderr)
    assert "Traceback" in str(line["exception"])
    assert str(line["exception"]).endswith("ValueError: bad")


@pytest.mark.django_db
def test_what_a_job_logs_has_its_id(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("json")
    job = claimed_job(do, doing(lambda: logging.getLogger("shop.mail").warning("the server is busy")))

    run(job)
    logging.getLogger("shop.mail").warning("nobody's job")

    # Django's tasks framework has a log of its own.
    inside, outside = (line for line in lines(stderr) if line["logger"] == "shop.mail")
    assert (inside["job_id"], inside["logger"], inside["message"]) == (job.id, "shop.mail", "the server is busy")
    assert "job_id" not in outside


@pytest.mark.django_db
def test_the_end_of_a_job_is_told_with_its_id_and_task(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("json")
    job = claimed_job(do, raising(ValueError("bad")))

    announce(run(job))

    (line,) = (line for line in lines(stderr) if line["logger"] == "django_jobs")
    assert (line["job_id"], line["task"], line["level"]) == (job.id, "tests.worker_tasks.do", "warning")
    assert "builtins.ValueError: bad" in str(line["message"])


def test_what_json_cannot_hold_is_written_as_text() -> None:
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "Half a character: %s", ("\ud800",), None)
    record.job_id, record.task = object, b"bytes"

    line = JsonFormatter().format(record)

    assert line.isascii()
    assert json.loads(line)["message"] == "Half a character: \ud800"
    assert json.loads(line)["task"] == "b'bytes'"


def test_the_log_of_the_project_is_json_too(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("json")

    logging.getLogger("shop").error("out of stock")

    assert [line["logger"] for line in lines(stderr)] == ["shop"]


# Text


def test_text_has_a_line_with_time_level_and_process(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("text")

    ours.warning("Queue %r is paused.", "mail")

    (line,) = stderr().splitlines()
    assert line.endswith(f" WARNING [{os.getpid()}] Queue 'mail' is paused.")


def test_text_leaves_the_log_of_the_project_alone(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("text")

    assert logging.getLogger().handlers == []


@pytest.mark.parametrize(
    ("verbosity", "heard"), [(0, ["warning"]), (1, ["info", "warning"]), (2, ["debug", "info", "warning"])]
)
def test_verbosity_chooses_how_much_is_told(
    ours: logging.Logger, stderr: Callable[[], str], verbosity: int, heard: list[str]
) -> None:
    configure("json", verbosity)

    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        ours.log(level, "something")

    assert [line["level"] for line in lines(stderr)] == heard


# The project's own


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_projects_own_handlers_are_kept(ours: logging.Logger, stderr: Callable[[], str], log_format: str) -> None:
    own = StringIO()
    handlers = [logging.StreamHandler(own)]
    ours.handlers = list(handlers)
    ours.propagate = False

    configure(log_format)
    ours.warning("heard once")

    assert ours.handlers == handlers
    assert own.getvalue() == "heard once\n"
    assert stderr() == ""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_handler_of_the_project_at_the_root_hears_all_and_alone(
    ours: logging.Logger, stderr: Callable[[], str], log_format: str
) -> None:
    own = StringIO()
    handler = logging.StreamHandler(own)

    configure(log_format, root=(handler,))
    logging.getLogger("shop").warning("theirs")
    ours.warning("ours")

    assert logging.getLogger().handlers == [handler]
    assert (own.getvalue(), stderr()) == ("theirs\nours\n", "")


def test_the_projects_own_level_is_kept(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    ours.setLevel(logging.ERROR)

    configure("text", verbosity=2)
    ours.warning("unheard")

    assert ours.level == logging.ERROR
    assert stderr() == ""


def test_no_record_is_written_twice(ours: logging.Logger, stderr: Callable[[], str]) -> None:
    configure("json")
    configure_logging("json")

    ours.warning("once")

    assert len(lines(stderr)) == 1
