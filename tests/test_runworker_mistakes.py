"""What runworker says to what cannot work: the mistake, and what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import override_settings

from django_jobs.exceptions import InvalidOption, JobsError
from django_jobs.management.commands.runworker import Command
from django_jobs.worker import Worker, preflight
from django_jobs.worker.options import resolve_options
from django_jobs.worker.preflight import NotReady, check_database


def test_a_misspelled_flag_is_answered_with_the_right_one() -> None:
    parser = Command().create_parser("manage.py", "runworker")

    with pytest.raises(CommandError, match=r"Did you mean --concurrency\?"):
        parser.parse_args(["--concurency", "3"])


def test_a_misspelled_environment_variable_is_answered_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_JOBS_CONCURENCY", "3")

    with pytest.raises(InvalidOption, match="DJANGO_JOBS_CONCURRENCY"):
        resolve_options({})


def test_an_orchestrators_variable_with_our_prefix_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_JOBS_SERVICE_HOST", "10.0.0.1")

    assert resolve_options({}).concurrency == 10


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("heartbeat_timeout", 1e300, "HEARTBEAT_TIMEOUT|heartbeat-timeout"),
        ("worker_id", "w" * 201, "at most 200 characters"),
        ("heartbeat_timeout", 10, "must be longer than HEARTBEAT_INTERVAL"),
        ("concurrency", 0, "at least 1"),
    ],
)
def test_a_value_that_cannot_work_is_refused(option: str, value: Any, told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        resolve_options({option.upper(): value})


@pytest.mark.django_db
def test_a_worker_takes_one_queue_as_a_text() -> None:
    assert Worker(queues="default").options.queues == ("default",)


@override_settings(DJANGO_JOBS={"DATABASE": "nowhere"})
def test_a_database_that_settings_do_not_have_is_named() -> None:
    with pytest.raises(NotReady, match="'nowhere'"):
        check_database(uses_processes=False, concurrency=1)


@pytest.mark.django_db(transaction=True)
@override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo")
def test_a_database_without_time_zones_is_refused_where_times_are_local() -> None:
    from django.db import connection

    if connection.features.supports_timezones:
        check_database(uses_processes=False, concurrency=1)
        return

    with pytest.raises(NotReady, match="USE_TZ"):
        check_database(uses_processes=False, concurrency=1)


@pytest.mark.django_db(transaction=True)
def test_a_worker_cannot_be_started_twice() -> None:
    worker = Worker(poll_interval=0.1)
    worker.start()
    worker.stop()

    with pytest.raises(JobsError, match="started before"):
        worker.start()


@pytest.mark.django_db(transaction=True)
def test_an_unknown_queue_is_a_command_error_with_the_known_ones() -> None:
    with pytest.raises(CommandError, match=r"Did you mean 'mail'\?.*default"):
        call_command("runworker", "--queue", "mial", "--processes", "0")


def test_a_worker_that_finds_the_database_locked_at_its_start_tries_again() -> None:
    tries: list[int] = []

    def prepare() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise OperationalError("database is locked")

    preflight._once_unlocked(prepare)

    assert len(tries) == 3


def test_any_other_error_of_the_database_ends_the_start_at_once() -> None:
    tries: list[int] = []

    def prepare() -> None:
        tries.append(len(tries))
        raise OperationalError("unable to open database file")

    with pytest.raises(OperationalError, match="unable to open"):
        preflight._once_unlocked(prepare)

    assert len(tries) == 1
