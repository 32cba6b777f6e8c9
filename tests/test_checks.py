"""System checks: what is wrong with settings is said, and what is right is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections

from django_jobs.checks import check_settings
from django_jobs.compat import task_backends

OURS = "django_jobs.backend.JobsBackend"
TASKS = {"default": {"BACKEND": OURS, "QUEUES": []}}


class Elsewhere:
    """A router that knows nothing of jobs but keeps every table in the default database."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    db_for_read = db_for_write


def run() -> list[checks.CheckMessage]:
    """Run our checks, and those of the backends, as Django does; here they could not touch the database."""
    return [*checks.run_checks(tags=["django_jobs"]), *_checks_of_backends()]


def _checks_of_backends() -> Iterator[checks.CheckMessage]:
    for backend in task_backends.all():
        yield from backend.check()


def ids() -> list[str]:
    return [str(message.id) for message in run()]


def test_the_settings_of_the_tests_are_clean() -> None:
    assert ids() == []


@pytest.mark.django_db
def test_the_settings_of_the_tests_pass_every_check_of_django() -> None:
    assert checks.run_checks() == []


def test_a_minimal_project_is_clean(settings: Any) -> None:
    del settings.DJANGO_JOBS
    settings.TASKS = TASKS

    assert ids() == []


def test_settings_that_say_all_there_is_to_say_are_clean(settings: Any) -> None:
    settings.DJANGO_JOBS = {
        "DATABASE": "default",
        "QUEUES": ["mail"],
        "MIDDLEWARE": ["tests.middleware.plain", "tests.middleware.AsClass"],
        "DUTIES": [("tidy", 60, "tests.middleware.takes_nothing"), ["sweep", 0.5, "builtins.dict"]],
        "HEARTBEAT_INTERVAL": 5,
        "HEARTBEAT_TIMEOUT": 20,
    }

    assert ids() == []


def test_every_message_is_a_fact_and_its_hint_an_instruction(settings: Any) -> None:
    settings.DJANGO_JOBS = {
        "CONCURENCY": 1,
        "MAX_ATTEMPTS": 0,
        "HEARTBEAT_TIMEOUT": 1,
        "DATABASE": "defualt",
        "MIDDLEWARE": ["nowhere.at_all"],
        "DUTIES": [("tidy", 60)],
    }
    settings.TASKS = {"default": {"BACKEND": "django_jobs.compat.BaseDummyBackend"}}

    messages = run()

    assert sorted(str(message.id) for message in messages) == [
        "django_jobs.E002",
        "django_jobs.E003",
        "django_jobs.E004",
        "django_jobs.E005",
        "django_jobs.E007",
        "django_jobs.E008",
        "django_jobs.W002",
    ]
    assert all(message.msg.endswith(".") and message.hint for message in messages)


@pytest.mark.django_db
def test_errors_stop_a_command(settings: Any) -> None:
    settings.DJANGO_JOBS = {"CONCURENCY": 1}

    with pytest.raises(SystemCheckError, match="CONCURENCY"):
        call_command("check")


@pytest.mark.parametrize("value", [["CONCURRENCY"], "CONCURRENCY", None, 5])
def test_settings_that_are_no_dict(settings: Any, value: Any) -> None:
    settings.DJANGO_JOBS = value

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E001"]
    assert "must be a dict" in messages[0].msg


def test_an_unknown_key_comes_with_the_closest_setting(settings: Any) -> None:
    settings.DJANGO_JOBS = {"CONCURENCY": 1, "COLOUR_OF_THE_SKY": 2, 7: 3}

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E002"] * 3
    assert messages[0].msg == "DJANGO_JOBS has a key 'CONCURENCY', which is no setting."
    assert messages[0].hint == "Did you mean 'CONCURRENCY'?"
    assert all("The settings are DATABASE, QUEUES" in str(message.hint) for message in messages[1:])


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("CONCURRENCY", 0, "DJANGO_JOBS['CONCURRENCY'] must be at least 1 jobs, not 0."),
        ("POLL_INTERVAL", "1", "DJANGO_JOBS['POLL_INTERVAL'] must be a number, not '1'."),
        ("QUEUES", "mail", "DJANGO_JOBS['QUEUES'] must be a list, not 'mail'."),
        ("MIDDLEWARE", [print], "DJANGO_JOBS['MIDDLEWARE'] must be a list of texts;"),
        ("DUTIES", None, "DJANGO_JOBS['DUTIES'] must be a list, not None."),
        ("DATABASE", 5, "DJANGO_JOBS['DATABASE'] must be a text, not 5."),
    ],
)
def test_a_bad_value(settings: Any, name: str, value: Any, fact: str) -> None:
    settings.DJANGO_JOBS = {name: value}

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E003"]
    assert messages[0].msg.startswith(fact)
    assert "Leave it out for the default" in str(messages[0].hint)


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ({"HEARTBEAT_TIMEOUT": 10}, "HEARTBEAT_TIMEOUT (10 s) must be longer than HEARTBEAT_INTERVAL (10 s)"),
        ({"HEARTBEAT_INTERVAL": 31}, "HEARTBEAT_TIMEOUT (30 s) must be longer than HEARTBEAT_INTERVAL (31 s)"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is 'text' or 'json', not 'xml'."),
    ],
)
def test_settings_that_contradict_each_other(settings: Any, values: dict[str, Any], fact: str) -> None:
    settings.DJANGO_JOBS = values

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E004"]
    assert fact in messages[0].msg


@pytest.mark.parametrize(
    "name", ["HEARTBEAT_INTERVAL", "HEARTBEAT_TIMEOUT", "MIN_PRIORITY", "MAX_PRIORITY", "LOG_FORMAT"]
)
def test_of_a_bad_value_nothing_is_said_but_that(settings: Any, name: str) -> None:
    settings.DJANGO_JOBS = {name: None}

    assert [message.id for message in run()] == ["django_jobs.E003"]


# The database


def test_an_unknown_database_comes_with_the_closest(settings: Any) -> None:
    settings.DJANGO_JOBS = {"DATABASE": "defualt"}

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E005"]
    assert messages[0].hint == "Did you mean 'default'?"


@pytest.fixture
def second_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(connections.settings, "jobs", {**connections.settings["default"], "NAME": "jobs"})
    yield "jobs"
    if hasattr(connections._connections, "jobs"):
        del connections["jobs"]


@pytest.mark.parametrize("routers", [[], [f"{__name__}.Elsewhere"]])
def test_jobs_in_another_database_without_a_router(settings: Any, second_database: str, routers: list[str]) -> None:
    settings.DJANGO_JOBS = {"DATABASE": second_database}
    settings.DATABASE_ROUTERS = routers

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E006"]
    assert "django_jobs.models.database.JobsRouter" in str(messages[0].hint)


def test_jobs_in_another_database_with_our_router(settings: Any, second_database: str) -> None:
    settings.DJANGO_JOBS = {"DATABASE": second_database}
    settings.DATABASE_ROUTERS = ["django_jobs.models.database.JobsRouter", f"{__name__}.Elsewhere"]

    assert ids() == []


@pytest.mark.parametrize(("processes", "expected"), [(1, ["django_jobs.W001"]), (0, [])])
@pytest.mark.parametrize("name", ["", ":memory:"])
def test_a_database_in_memory_with_worker_processes(
    settings: Any, monkeypatch: pytest.MonkeyPatch, name: str, processes: int, expected: list[str]
) -> None:
    in_memory = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": name}
    monkeypatch.setitem(connections.settings, "default", in_memory)
    settings.DJANGO_JOBS = {"PROCESSES": processes}

    assert ids() == expected


# What settings name


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nowhere.at_all", "cannot be imported: No module named 'nowhere'"),
        ("tests.middleware.missing", "cannot be imported: Module"),
        ("plain", "cannot be imported: plain doesn't look like a module path"),
        ("tests.raises_on_import.plain", "its module raises RuntimeError: this module is broken"),
        ("tests.middleware.takes_nothing", "is no callable that takes the next call of the chain"),
        ("tests.middleware.NO_CALLABLE", "is no callable that takes the next call of the chain"),
    ],
)
def test_middleware_that_cannot_work(settings: Any, path: str, problem: str) -> None:
    settings.DJANGO_JOBS = {"MIDDLEWARE": ["tests.middleware.plain", path]}

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E007"]
    assert messages[0].msg.startswith(f"DJANGO_JOBS['MIDDLEWARE'] names {path!r}, which ")
    assert problem in messages[0].msg


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("tests.middleware.takes_nothing", "it is not a tuple of three"),
        (("tidy", 60), "it is not a tuple of three"),
        (5, "it is not a tuple of three"),
        (("", 60, "tests.middleware.takes_nothing"), "the name '' is no text"),
        ((None, 60, "tests.middleware.takes_nothing"), "the name None is no text"),
        (("tidy", 0, "tests.middleware.takes_nothing"), "0 is no number of seconds above 0"),
        (("tidy", "60", "tests.middleware.takes_nothing"), "'60' is no number of seconds above 0"),
        (("tidy", float("nan"), "tests.middleware.takes_nothing"), "nan is no number of seconds above 0"),
        (("tidy", 60, "nowhere.at_all"), "'nowhere.at_all' cannot be imported"),
        (("tidy", 60, print), "is no dotted path"),
        (("tidy", 60, "tests.middleware.plain"), "is no function without arguments"),
        (("tidy", 60, "tests.middleware.NO_CALLABLE"), "is no function without arguments"),
    ],
)
def test_a_duty_that_cannot_work(settings: Any, entry: Any, problem: str) -> None:
    settings.DJANGO_JOBS = {"DUTIES": [entry]}

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E008"]
    assert problem in messages[0].msg


# TASKS


def test_a_backend_with_keys_that_it_does_not_know(settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": OURS, "QUEUE": [], "OPTIONS": {"max_attempts": 5}}}

    messages = run()

    assert [message.id for message in messages] == ["django_jobs.E009"] * 2
    assert [message.msg.split(",")[0] for message in messages] == [
        "TASKS['default'] has a key 'QUEUE'",
        "TASKS['default']['OPTIONS'] has a key 'max_attempts'",
    ]


def test_queues_of_a_backend_that_are_one_text(settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": OURS, "QUEUES": "mail"}}

    assert ids() == ["django_jobs.E010"]


@pytest.mark.parametrize(
    "tasks",
    [
        {"default": {"BACKEND": "django_jobs.compat.BaseImmediateBackend"}},
        {"default": {"BACKEND": "django_jobs.compat.BaseDummyBackend"}},
    ],
)
def test_tasks_without_a_backend_of_ours(settings: Any, tasks: dict[str, Any]) -> None:
    settings.TASKS = tasks

    assert ids() == ["django_jobs.W002"]


def test_one_backend_of_ours_among_others_will_do(settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": "django_jobs.compat.BaseDummyBackend"}, "jobs": {"BACKEND": OURS}}

    assert ids() == []


def test_a_backend_that_cannot_be_imported_is_left_to_django(settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": "nowhere.Backend"}, "jobs": {"BACKEND": OURS}}

    assert check_settings() == []
