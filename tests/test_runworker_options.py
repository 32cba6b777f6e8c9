"""``runworker``'s options: where each comes from, and what is refused before a worker starts.

What the options do is tested with real processes, in ``tests/process/test_options.py``.
"""

from __future__ import annotations

import os
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_jobs import conf
from django_jobs.exceptions import InvalidOption, UnknownQueue
from django_jobs.management.commands.runworker import Command
from django_jobs.models import Queue
from django_jobs.worker.options import WorkerOptions, check_queues, resolve_options

WORKER_OPTIONS = [name for name, setting in conf.SETTINGS.items() if setting.is_worker_option]


@pytest.fixture(autouse=True)
def nothing_is_set(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DJANGO_JOBS = {}
    for variable in [name for name in os.environ if name.startswith("DJANGO_JOBS_")]:
        monkeypatch.delenv(variable)


def show_config(*flags: str) -> dict[str, tuple[str, str]]:
    """Return value and source of each option, as the command prints them."""
    output = StringIO()
    call_command("runworker", "--show-config", *flags, stdout=output)
    shown = {}
    for line in output.getvalue().splitlines():
        name, rest = line.split(maxsplit=1)
        value, _, source = rest.rpartition(" ")
        shown[name] = (value.strip(), source)
    return shown


def refused(*flags: str) -> str:
    """Return why the command refuses to start with these flags."""
    with pytest.raises(CommandError) as caught:
        call_command("runworker", "--show-config", *flags)
    return str(caught.value)


# Where values come from


def test_every_option_is_shown_with_its_default() -> None:
    shown = show_config()

    assert list(shown) == WORKER_OPTIONS
    assert {source for _, source in shown.values()} == {"default"}
    assert shown["CONCURRENCY"] == ("10", "default")
    assert shown["HEARTBEAT_TIMEOUT"] == ("30.0 s", "default")
    assert shown["TAGS"] == ("[]", "default")


def test_a_flag_goes_before_the_environment_before_the_setting_before_the_default(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DJANGO_JOBS = {"CONCURRENCY": 2, "ASYNC_CONCURRENCY": 2, "POLL_INTERVAL": 2}
    monkeypatch.setenv("DJANGO_JOBS_CONCURRENCY", "3")
    monkeypatch.setenv("DJANGO_JOBS_ASYNC_CONCURRENCY", "3")

    shown = show_config("--concurrency=4")

    assert shown["CONCURRENCY"] == ("4", "flag")
    assert shown["ASYNC_CONCURRENCY"] == ("3", "environment")
    assert shown["POLL_INTERVAL"] == ("2 s", "setting")
    assert shown["PROCESSES"] == ("1", "default")


def test_a_flag_counts_also_where_it_says_what_the_default_says() -> None:
    assert show_config("--concurrency=10")["CONCURRENCY"] == ("10", "flag")


FLAGS = {
    "WORKER_ID": ("--worker-id=w1", "w1"),
    "TAGS": ("--tag=gpu", "['gpu']"),
    "MIN_PRIORITY": ("--min-priority=-50", "-50"),
    "MAX_PRIORITY": ("--max-priority=50", "50"),
    "CONCURRENCY": ("-c3", "3"),
    "ASYNC_CONCURRENCY": ("--async-concurrency=3", "3"),
    "PROCESSES": ("-p0", "0"),
    "HEARTBEAT_INTERVAL": ("--heartbeat-interval=0.5", "0.5 s"),
    "HEARTBEAT_TIMEOUT": ("--heartbeat-timeout=15.5", "15.5 s"),
    "HANG_TIMEOUT": ("--hang-timeout=60", "60.0 s"),
    "POLL_INTERVAL": ("--poll-interval=0.25", "0.25 s"),
    "SHUTDOWN_TIMEOUT": ("--shutdown-timeout=0", "0.0 s"),
    "CLAIM_AHEAD": ("--claim-ahead=0", "0.0 s"),
    "NOTIFY": ("--no-notify", "False"),
    "LOG_FORMAT": ("--log-format=json", "json"),
}


@pytest.mark.parametrize("name", WORKER_OPTIONS)
def test_every_option_has_a_flag(name: str) -> None:
    flag, value = FLAGS[name]

    assert show_config(flag)[name] == (value, "flag")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("TAGS", "gpu,eu-west", "['gpu', 'eu-west']"),
        ("HEARTBEAT_INTERVAL", "2.5", "2.5 s"),
        ("NOTIFY", "off", "False"),
        ("LOG_FORMAT", "json", "json"),
    ],
)
def test_the_environment_is_heard(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: str) -> None:
    monkeypatch.setenv(f"DJANGO_JOBS_{name}", text)

    assert show_config()[name] == (value, "environment")


def test_tags_are_given_one_by_one() -> None:
    assert show_config("--tag=gpu", "--tag", "eu-west")["TAGS"] == ("['gpu', 'eu-west']", "flag")


# What a worker is told


def test_the_options_are_resolved_with_what_only_a_start_can_say() -> None:
    options = resolve_options({"CONCURRENCY": 3, "TAGS": ["gpu"], "NOTIFY": None}, ["mail", "!bulk"], once=True)

    assert (options.concurrency, options.tags, options.notify) == (3, ("gpu",), True)
    assert (options.queues, options.burst, options.once) == (("mail", "!bulk"), False, True)


def test_all_queues_are_served_unless_some_are_named() -> None:
    assert resolve_options({}).queues == ("*",)


def test_the_options_survive_the_way_to_a_worker_process() -> None:
    options = resolve_options({"TAGS": ["gpu"]}, ["mail"], burst=True)

    assert WorkerOptions.from_json(options.as_json()) == options


def test_every_option_and_flag_is_described() -> None:
    text = Command().create_parser("manage.py", "runworker").format_help()

    for name in WORKER_OPTIONS:
        flag = {"TAGS": "--tag", "NOTIFY": "--no-notify"}.get(name, "--" + name.lower().replace("_", "-"))
        assert flag in text
    for flag in ("--queue", "--burst", "--once", "--reload", "--show-config"):
        assert flag in text
    assert "Exit codes: 0" in " ".join(text.split())


# What is refused


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--concurrency=0", "--concurrency must be at least 1 jobs, not 0."),
        ("--async-concurrency=-1", "--async-concurrency must be at least 1 jobs, not -1."),
        ("--processes=-1", "--processes must be at least 0 processes, not -1."),
        ("--poll-interval=0", "--poll-interval must be at least 0.01 s, not 0.0."),
        ("--shutdown-timeout=-1", "--shutdown-timeout must be at least 0 s, not -1.0."),
        ("--hang-timeout=0", "--hang-timeout must be at least 1 s, not 0.0."),
        ("--claim-ahead=nan", "--claim-ahead must be a finite number, not nan."),
        ("--shutdown-timeout=inf", "--shutdown-timeout must be a finite number, not inf."),
        ("--concurrency=many", "Error: argument -c/--concurrency: invalid int value: 'many'"),
        ("--poll-interval=soon", "Error: argument --poll-interval: invalid float value: 'soon'"),
    ],
)
def test_a_flag_that_cannot_work_is_refused_by_its_name(flag: str, reason: str) -> None:
    assert refused(flag) == reason


def test_an_unknown_log_format_is_refused() -> None:
    assert "invalid choice: 'xml'" in refused("--log-format=xml")


@pytest.mark.parametrize(
    ("interval", "timeout"), [("10", "10"), ("10", "5"), ("40", None), (None, "10"), (None, "0.5")]
)
def test_a_lease_that_is_not_longer_than_the_heartbeat_is_refused(interval: str | None, timeout: str | None) -> None:
    flags = {"--heartbeat-interval": interval, "--heartbeat-timeout": timeout}

    reason = refused(*(f"{flag}={value}" for flag, value in flags.items() if value is not None))

    assert reason == (
        f"HEARTBEAT_TIMEOUT ({timeout or '30'} s) must be longer than HEARTBEAT_INTERVAL ({interval or '10'} s), or every "
        "worker looks dead between two beats. Three times the interval is a good value."
    )


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("DJANGO_JOBS_CONCURRENCY", "many", "DJANGO_JOBS_CONCURRENCY='many' is not a whole number."),
        ("DJANGO_JOBS_POLL_INTERVAL", "", "DJANGO_JOBS_POLL_INTERVAL='' is not a number."),
        ("DJANGO_JOBS_NOTIFY", "maybe", "DJANGO_JOBS_NOTIFY='maybe' is not true or false."),
        ("DJANGO_JOBS_LOG_FORMAT", "xml", "LOG_FORMAT is 'text' or 'json', not 'xml'."),
    ],
)
def test_a_variable_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, reason: str
) -> None:
    monkeypatch.setenv(variable, text)

    assert refused() == reason


def test_a_setting_that_cannot_work_is_refused(settings: Any) -> None:
    settings.DJANGO_JOBS = {"CONCURRENCY": "10"}

    assert refused() == "DJANGO_JOBS['CONCURRENCY'] must be a whole number, not '10'."


def test_a_bad_value_below_a_good_one_harms_nothing(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DJANGO_JOBS = {"CONCURRENCY": "10"}
    monkeypatch.setenv("DJANGO_JOBS_CONCURRENCY", "many")

    assert show_config("--concurrency=4")["CONCURRENCY"] == ("4", "flag")


# Suggestions


def test_an_unknown_flag_comes_with_the_closest_one() -> None:
    assert "--concurency" in refused("--concurency=4")
    assert "Did you mean --concurrency?" in refused("--concurency=4")


def test_a_misspelled_variable_comes_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_JOBS_CONCURENCY", "4")

    assert refused() == (
        "There is no option for the environment variable DJANGO_JOBS_CONCURENCY. Did you mean DJANGO_JOBS_CONCURRENCY?"
    )


def test_variables_of_others_that_share_the_prefix_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_JOBS_SERVICE_HOST", "10.0.0.1")

    assert list(show_config()) == WORKER_OPTIONS


def test_an_unknown_option_in_code_comes_with_the_closest_one() -> None:
    with pytest.raises(InvalidOption, match=r"^A worker has no option 'concurency'\. Did you mean 'concurrency'\?$"):
        resolve_options({"CONCURENCY": 4})
    with pytest.raises(InvalidOption, match=r"^A worker has no option 'zzz'\.$"):
        resolve_options({"ZZZ": 4})


def test_a_setting_that_is_no_option_of_a_worker_is_refused_as_one() -> None:
    with pytest.raises(InvalidOption, match="A worker has no option 'keep_failed'"):
        resolve_options({"KEEP_FAILED": 4})


@pytest.mark.django_db
class TestQueues:
    def test_an_unknown_queue_comes_with_the_closest_one_and_all_there_are(self, settings: Any) -> None:
        settings.DJANGO_JOBS = {"QUEUES": ["reports"]}

        with pytest.raises(UnknownQueue) as caught:
            check_queues(["report"])

        assert str(caught.value).startswith("Nobody declared a queue 'report'. Did you mean 'reports'? Known: ")
        assert str(caught.value).endswith("Add it to DJANGO_JOBS['QUEUES'], or name it in a task.")

    def test_a_queue_to_leave_out_must_be_known_too(self) -> None:
        with pytest.raises(UnknownQueue, match=r"'mial'\. Did you mean 'mail'\?"):
            check_queues(["*", "!mial"])

    def test_queues_of_settings_tasks_and_rows_are_known(self, settings: Any) -> None:
        settings.DJANGO_JOBS = {"QUEUES": ["of settings"]}
        Queue.objects.declare("of a row")

        check_queues(["default", "mail", "of settings", "of a row", "!mail"])

    def test_a_prefix_needs_no_queue(self) -> None:
        check_queues(["future*", "!future.bulk*", "*"])

    @pytest.mark.parametrize("pattern", ["", "!", "ma*il", "**", "!*x", "!!mail"])
    def test_what_is_no_pattern_is_refused(self, pattern: str) -> None:
        with pytest.raises((InvalidOption, UnknownQueue), match="--queue|Nobody declared"):
            check_queues([pattern])
