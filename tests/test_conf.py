"""Settings, and the options of a worker: where each value comes from and which values are refused."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs import conf
from django_jobs.exceptions import InvalidOption

WORKER_OPTIONS = [name for name, setting in conf.SETTINGS.items() if setting.is_worker_option]


def test_a_setting_that_is_not_set_has_its_default(settings: Any) -> None:
    settings.DJANGO_JOBS = {}

    read = {name: conf.read(name) for name in conf.SETTINGS}

    assert read == {name: setting.default for name, setting in conf.SETTINGS.items()}


def test_settings_may_be_left_out_altogether(settings: Any) -> None:
    del settings.DJANGO_JOBS

    assert conf.read("MAX_ATTEMPTS") == 3


def test_a_setting_of_the_project_counts(settings: Any) -> None:
    settings.DJANGO_JOBS = {"MAX_ATTEMPTS": 9, "QUEUES": ("mail", "reports"), "KEEP_FAILED": 60}

    assert conf.read("MAX_ATTEMPTS") == 9
    assert conf.read("QUEUES") == ["mail", "reports"]
    assert conf.read("KEEP_FAILED") == 60


@pytest.mark.parametrize("name", conf.SETTINGS)
def test_every_setting_is_described_by_a_sentence(name: str) -> None:
    setting = conf.SETTINGS[name]

    assert setting.sentence.endswith(".")
    assert setting.kind in (int, float, str, bool, list, dict)
    assert setting.unit or setting.kind is bool or name == "LOG_FORMAT"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MAX_ATTEMPTS", "3", "must be a whole number, not '3'"),
        ("MAX_ATTEMPTS", 2.5, "must be a whole number, not 2.5"),
        ("MAX_ATTEMPTS", True, "must be a whole number, not True"),
        ("MAX_ATTEMPTS", 0, "must be at least 1 attempts, not 0"),
        ("KEEP_FAILED", -1, "must be at least 0 s, not -1"),
        ("KEEP_FAILED", float("nan"), "must be a finite number, not nan"),
        ("KEEP_FAILED", float("inf"), "must be a finite number, not inf"),
        ("KEEP_FAILED", True, "must be a number, not True"),
        ("DATABASE", None, "must be a text, not None"),
        ("QUEUES", "mail", "must be a list, not 'mail'"),
        ("QUEUES", ["mail", 1], "must be a list of texts; 1 is none"),
        ("NOTIFY", 1, "must be true or false, not 1"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(settings: Any, name: str, value: Any, problem: str) -> None:
    settings.DJANGO_JOBS = {name: value}

    with pytest.raises(InvalidOption) as caught:
        conf.read(name)

    assert f"DJANGO_JOBS[{name!r}] {problem}" in str(caught.value)


def test_settings_that_are_no_dict_are_refused(settings: Any) -> None:
    settings.DJANGO_JOBS = ["CONCURRENCY"]

    with pytest.raises(InvalidOption, match="must be a dict, not list"):
        conf.read("CONCURRENCY")


def test_an_unknown_key_comes_with_the_closest_setting(settings: Any) -> None:
    settings.DJANGO_JOBS = {"CONCURENCY": 1, "poll_interval": 2, "ZZZ": 3, 7: 4, "QUEUES": []}

    unknown = conf.unknown_keys()

    assert unknown == {"CONCURENCY": "CONCURRENCY", "poll_interval": "POLL_INTERVAL", "ZZZ": None, 7: None}


def test_a_flag_goes_before_the_environment_before_the_setting_before_the_default(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DJANGO_JOBS = {"CONCURRENCY": 2, "ASYNC_CONCURRENCY": 2, "PROCESSES": 2}
    monkeypatch.setenv("DJANGO_JOBS_CONCURRENCY", "3")
    monkeypatch.setenv("DJANGO_JOBS_ASYNC_CONCURRENCY", "3")

    options = conf.worker_options({"CONCURRENCY": 4, "POLL_INTERVAL": None})

    assert options["CONCURRENCY"] == (4, "flag")
    assert options["ASYNC_CONCURRENCY"] == (3, "environment")
    assert options["PROCESSES"] == (2, "setting")
    assert options["POLL_INTERVAL"] == (1.0, "default")


def test_every_worker_option_is_resolved(settings: Any) -> None:
    settings.DJANGO_JOBS = {}

    options = conf.worker_options({})

    assert list(options) == WORKER_OPTIONS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("CONCURRENCY", "16", 16),
        ("POLL_INTERVAL", "0.25", 0.25),
        ("NOTIFY", "no", False),
        ("NOTIFY", "TRUE", True),
        ("TAGS", "gpu,eu-west", ["gpu", "eu-west"]),
        ("WORKER_ID", "w1", "w1"),
    ],
)
def test_the_environment_is_read_as_the_kind_of_the_option(
    settings: Any, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    settings.DJANGO_JOBS = {}
    monkeypatch.setenv(f"DJANGO_JOBS_{name}", text)

    assert conf.worker_options({})[name] == (value, "environment")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("CONCURRENCY", "many", "DJANGO_JOBS_CONCURRENCY='many' is not a whole number."),
        ("CONCURRENCY", "", "DJANGO_JOBS_CONCURRENCY='' is not a whole number."),
        ("CONCURRENCY", "0", "DJANGO_JOBS_CONCURRENCY must be at least 1 jobs, not 0."),
        ("POLL_INTERVAL", "soon", "DJANGO_JOBS_POLL_INTERVAL='soon' is not a number."),
        ("NOTIFY", "maybe", "DJANGO_JOBS_NOTIFY='maybe' is not true or false."),
        ("LOG_FORMAT", "xml", "LOG_FORMAT is 'text' or 'json', not 'xml'."),
    ],
)
def test_a_bad_value_in_the_environment_is_refused_by_the_variables_name(
    settings: Any, monkeypatch: pytest.MonkeyPatch, name: str, text: str, problem: str
) -> None:
    settings.DJANGO_JOBS = {}
    monkeypatch.setenv(f"DJANGO_JOBS_{name}", text)

    with pytest.raises(InvalidOption) as caught:
        conf.worker_options({})

    assert str(caught.value) == problem


def test_a_bad_flag_is_refused_by_its_name(settings: Any) -> None:
    settings.DJANGO_JOBS = {}

    with pytest.raises(InvalidOption, match="^--heartbeat-interval must be at least 0.01 s, not 0.$"):
        conf.worker_options({"HEARTBEAT_INTERVAL": 0})


@pytest.mark.parametrize("timeout", [5, 10])
def test_a_lease_that_ends_before_it_is_renewed_is_refused(settings: Any, timeout: float) -> None:
    settings.DJANGO_JOBS = {"HEARTBEAT_INTERVAL": 10}

    with pytest.raises(InvalidOption, match=r"HEARTBEAT_TIMEOUT \(\d+ s\) must be longer than HEARTBEAT_INTERVAL"):
        conf.worker_options({"HEARTBEAT_TIMEOUT": timeout})


@pytest.mark.parametrize("before", [None, {"QUEUES": ["mail"]}])
def test_settings_can_be_changed_for_a_while(settings: Any, before: dict[str, Any] | None) -> None:
    del settings.DJANGO_JOBS
    if before is not None:
        settings.DJANGO_JOBS = before

    with pytest.raises(KeyError), conf.changed(DATABASE="other"):
        inside = conf.database(), conf.read("QUEUES")
        raise KeyError

    assert inside == ("other", ["mail"] if before else [])
    assert conf.database() == "default"
    assert getattr(settings, "DJANGO_JOBS", None) == before
