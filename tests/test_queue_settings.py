"""The settings of queues: declared by code and settings, judged where they are written and where they are used."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext

from django_jobs import conf, notifications
from django_jobs.checks import check_settings
from django_jobs.exceptions import InvalidOption
from django_jobs.models import Job, Queue
from django_jobs.models.backlog import backlogs
from django_jobs.states import FINISHED
from django_jobs.worker.duties import prune
from django_jobs.worker.options import declare_known_queues, known_queues

from .exchanges import Hand, enqueue
from .rivals import Rival, wait_until_blocked
from .rows import job_in, start_worker

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)

# Every setting with a value that none has by itself, as it is given and as it is stored.
ALL = {
    "tags": (("gpu", "zone=.*"), ["gpu", "zone=.*"]),
    "concurrency": (2, 2),
    "max_running": (3, 3),
    "rate_limit": (4, 4),
    "rate_window": (timedelta(minutes=1), 60.0),
    "executor": ("thread", "thread"),
    "timeout": (timedelta(seconds=5), 5.0),
    "poll_interval": (0.25, 0.25),
    "raise_after": (HOUR, 3600.0),
    "raise_by": (6, 6),
    "keep_succeeded": (3600, HOUR),
    "keep_failed": (0.5, timedelta(milliseconds=500)),
}
GIVEN = {name: given for name, (given, _stored) in ALL.items()}
STORED = {name: stored for name, (_given, stored) in ALL.items()}


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the hints that are given, in order."""
    heard: list[str] = []
    monkeypatch.setattr(notifications, "hint", lambda kind, name="": heard.append(kind))
    return heard


def settings_of(name: str = "mail") -> dict[str, Any]:
    return Queue.objects.values(*ALL).get(name=name)


def store(name: str, column: str, value: Any) -> None:
    """Write a value into a row, past every check."""
    is_json = column == "tags"
    cast = "::jsonb" if is_json and connection.features.has_native_json_field else ""
    with connection.cursor() as cursor:
        sql = f"UPDATE django_jobs_queue SET {column} = %s{cast} WHERE name = %s"
        cursor.execute(sql, [value if not is_json or isinstance(value, str) else json.dumps(value), name])


# By code


@pytest.mark.parametrize("upsert", [False, True])
def test_every_setting_can_be_declared(upsert: bool) -> None:
    queue = Queue.objects.declare("mail", upsert=upsert, **GIVEN)

    assert settings_of() == STORED
    assert {name: getattr(queue, name) for name in ALL} == STORED


@pytest.mark.parametrize("setting", ALL)
def test_an_upsert_changes_the_given_settings_and_no_other(setting: str) -> None:
    Queue.objects.declare("mail")
    plain = settings_of()
    pair = {"rate_limit", "rate_window"} if setting in ("rate_limit", "rate_window") else {setting}

    Queue.objects.declare("mail", upsert=True, **{name: GIVEN[name] for name in pair})

    assert settings_of() == plain | {name: STORED[name] for name in pair}


def test_an_upsert_leaves_a_pause_alone() -> None:
    Queue.objects.declare("mail")
    Queue.objects.pause("mail", "Strike")

    Queue.objects.declare("mail", upsert=True, concurrency=2)

    assert Queue.objects.paused().get().paused_reason == "Strike"


def test_without_upsert_an_existing_queue_stays_as_an_operator_changed_it() -> None:
    Queue.objects.declare("mail", **GIVEN)

    declared = Queue.objects.declared("mail", {"concurrency": 9, "max_running": 3})

    assert settings_of() == STORED
    assert (declared.is_new, declared.changed, declared.left) == (False, (), ("concurrency",))


def test_half_of_a_rate_joins_the_other_half_of_the_row() -> None:
    Queue.objects.declare("mail", rate_limit=5, rate_window=60)

    Queue.objects.declare("mail", upsert=True, rate_limit=7)
    Queue.objects.declare("mail", upsert=True, rate_window=HOUR)

    assert (settings_of()["rate_limit"], settings_of()["rate_window"]) == (7, 3600.0)


@pytest.mark.parametrize("given", [{"rate_limit": 5}, {"rate_window": 5}])
@pytest.mark.parametrize("exists", [False, True])
def test_half_of_a_rate_is_refused(given: dict[str, Any], exists: bool) -> None:
    if exists:
        Queue.objects.declare("mail")

    with pytest.raises(InvalidOption, match=r"Queue 'mail': rate_(limit|window) is missing"):
        Queue.objects.declare("mail", upsert=True, **given)

    assert Queue.objects.filter(rate_limit=None, rate_window=None).exists() is exists


@pytest.mark.parametrize("half", ["rate_limit", "rate_window"])
def test_half_of_a_rate_is_not_taken_away(half: str) -> None:
    Queue.objects.declare("mail", rate_limit=5, rate_window=60)

    with pytest.raises(InvalidOption, match=f"{half} is missing"):
        Queue.objects.declare("mail", upsert=True, **{half: None})

    Queue.objects.declare("mail", upsert=True, rate_limit=None, rate_window=None)
    assert settings_of()["rate_limit"] is None


@pytest.mark.parametrize("upsert", [False, True])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tags": ["("]}, r"tags has the expression '\(', which is no regular expression: missing \)"),
        ({"tags": "gpu"}, "tags must be a list of texts"),
        ({"tags": ["x" * 501]}, "tags has an expression of 501 characters"),
        ({"concurrency": 0}, "concurrency must be at least 1, not 0. .*pause the queue"),
        ({"max_running": -1}, "max_running must be a whole number"),
        ({"rate_limit": 1, "rate_window": math.nan}, "rate_window must be between"),
        ({"executor": "process"}, "executor must be one of"),
        ({"timeout": timedelta(seconds=-1)}, "timeout must be between"),
        ({"keep_failed": -1}, "keep_failed must be between"),
        ({"keep_failed": math.nan}, "keep_failed must be between"),
        ({"keep_failed": 1e300}, "keep_failed must be between"),
        ({"raise_by": None}, "raise_by must be a whole number"),
        ({"concurency": 5}, "A queue has no setting 'concurency'. Did you mean 'concurrency'"),
        ({"paused_at": None}, "A queue has no setting 'paused_at'"),
    ],
)
def test_what_cannot_work_is_refused_and_changes_nothing(
    settings: dict[str, Any], problem: str, upsert: bool, exists: bool
) -> None:
    if exists:
        Queue.objects.declare("mail", timeout=9)

    with pytest.raises(InvalidOption, match=f"Queue 'mail': {problem}"):
        Queue.objects.declare("mail", upsert=upsert, **{"concurrency": 7, **settings})

    assert list(Queue.objects.values_list("timeout", "concurrency")) == ([(9.0, None)] if exists else [])


def test_a_problem_of_another_setting_does_not_keep_an_upsert_away() -> None:
    Queue.objects.declare("mail")
    store("mail", "tags", ["("])

    Queue.objects.declare("mail", upsert=True, concurrency=2)
    Queue.objects.declare("mail", upsert=True, tags=["gpu"])

    assert (Queue.objects.get().concurrency, Queue.objects.get().problem) == (2, "")


def test_workers_are_told_of_a_change_and_only_then(hints: list[str]) -> None:
    told = []
    for settings in ({}, {}, {"concurrency": 5}, {"concurrency": 5}, {"concurrency": None}):
        hints.clear()
        Queue.objects.declare("mail", upsert=True, **settings)
        told.append(list(hints))

    assert told == [["queues"], [], ["queues"], [], ["queues"]]


def test_an_upsert_that_changes_nothing_writes_nothing() -> None:
    Queue.objects.declare("mail", **GIVEN)
    saved: list[Any] = []

    def hear(**kwargs: Any) -> None:
        saved.append(kwargs)

    post_save.connect(hear, sender=Queue)
    try:
        Queue.objects.declare("mail", upsert=True, **GIVEN)
    finally:
        post_save.disconnect(hear, sender=Queue)

    assert saved == []


@pytest.mark.django_db(transaction=True)
def test_two_upserts_at_once_both_count() -> None:
    Queue.objects.declare("mail")
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(Queue.objects.declared, "mail", {"rate_limit": 5, "rate_window": 60}, True)
        changing = second.start(Queue.objects.declared, "mail", {"rate_limit": 7}, True)
        wait_until_blocked()
        rival.commit()
        changing.result(20)

    assert (settings_of()["rate_limit"], settings_of()["rate_window"]) == (7, 60.0)


# By a form or a fixture: the model's own judgement


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"tags": ["("]}, "tags"),
        ({"tags": "gpu"}, "tags"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_running": 0}, "max_running"),
        ({"rate_limit": 5}, "rate_window"),
        ({"rate_window": 5}, "rate_limit"),
        ({"rate_limit": 5, "rate_window": math.nan}, "rate_window"),
        ({"executor": "process"}, "executor"),
        ({"timeout": -1}, "timeout"),
        ({"keep_failed": timedelta(seconds=-1)}, "keep_failed"),
    ],
)
def test_a_row_that_cannot_work_is_not_clean(values: dict[str, Any], field: str) -> None:
    queue = Queue(name="mail", **values)

    with pytest.raises(ValidationError) as caught:
        queue.full_clean()
    with pytest.raises(ValidationError):
        queue.clean()

    assert list(caught.value.message_dict) == [field]
    assert caught.value.message_dict[field][0].startswith(f"{field} ")


def test_a_row_that_can_work_is_clean() -> None:
    Queue(name="mail", **STORED).full_clean()
    Queue(name="letters", tags=[]).full_clean()


# Past every judgement

BEYOND_PYTHON = "[" + "9" * 5000 + "]"
DEEP = "[" * 900 + "]" * 900

RAW: list[tuple[str, Any, str]] = [
    ("tags", ["("], "tags has the expression '('"),
    ("tags", "null", "tags must be a list of texts, not None"),
    ("tags", '"gpu"', "tags must be a list of texts, not 'gpu'"),
    ("tags", "5", "tags must be a list of texts, not 5"),
    ("tags", '{"gpu": true}', "tags must be a list of texts"),
    ("tags", "[[1]]", "tags must be a list of texts; [1] is none"),
    ("tags", BEYOND_PYTHON, "tags must be a list of texts, not "),
    ("tags", DEEP, "tags must be a list of texts"),
    ("tags", ["x" * 100_000], "tags has an expression of 100000 characters"),
    ("concurrency", 0, "concurrency must be at least 1"),
    ("max_running", 0, "max_running must be at least 1"),
    ("rate_limit", 5, "rate_window is missing"),
    ("rate_window", 5, "rate_limit is missing"),
    ("rate_window", -1, "rate_window must be between"),
    ("executor", "prefork", "executor must be one of"),
    ("timeout", -1, "timeout must be between"),
    ("poll_interval", -1, "poll_interval must be between"),
    ("raise_after", 0, "raise_after must be between"),
    ("raise_by", 0, "raise_by must be a whole number"),
]
raw = pytest.mark.parametrize(("column", "value", "problem"), RAW, ids=range(len(RAW)))


@raw
def test_a_bad_row_switches_off_its_own_queue_only(column: str, value: Any, problem: str) -> None:
    Queue.objects.declare_all(["a", "mail", "z"])
    store("mail", column, value)

    lanes = [lane.name for lane in Queue.objects.lanes_for(["*"], ["*", "x", "gpu"])]

    assert lanes == ["a", "z"]


@raw
def test_a_bad_row_is_a_problem_and_nobody_serves_it(column: str, value: Any, problem: str) -> None:
    Queue.objects.declare_all(["a", "mail"])
    start_worker()
    store("mail", column, value)

    found = backlogs(list(Queue.objects.all()))

    assert problem in found["mail"].problem
    assert (len(found["mail"].workers), len(found["a"].workers), found["a"].problem) == (0, 1, "")


@pytest.mark.skipif(not connection.features.has_native_json_field, reason="SQLite stores no NaN")
@pytest.mark.parametrize("column", ["timeout", "poll_interval", "raise_after"])
def test_a_row_with_nan_is_switched_off(column: str) -> None:
    Queue.objects.declare_all(["a", "mail"])
    store("mail", column, math.nan)

    assert Queue.objects.served_by(["*"]) == ["a"]


@pytest.mark.skipif(connection.features.has_native_json_field, reason="PostgreSQL's columns have a type")
@pytest.mark.parametrize("column", ["concurrency", "max_running", "timeout", "raise_by"])
def test_a_row_with_a_text_for_a_number_is_switched_off(column: str) -> None:
    Queue.objects.declare_all(["a", "mail"])
    store("mail", column, "many")

    assert Queue.objects.served_by(["*"]) == ["a"]


@pytest.mark.parametrize("column", ["keep_succeeded", "keep_failed"])
def test_a_row_with_a_negative_time_to_keep_jobs_deletes_none(column: str) -> None:
    Queue.objects.declare_all(["a", "mail"])
    Queue.objects.filter(name="mail").update(**{column: -HOUR})
    for state in FINISHED:
        job_in(state, queue_name="mail")

    prune()

    assert Job.objects.count() == 3
    assert Queue.objects.served_by(["*"]) == ["a"]


def test_a_worker_goes_on_with_its_other_queues_and_comes_back_to_a_mended_one() -> None:
    Queue.objects.declare_all(["default", "mail"])
    [bad], [good] = enqueue(1, queue_name="mail"), enqueue(1)
    store("mail", "tags", ["("])
    with Hand() as hand:
        meanwhile = hand.look()
        Queue.objects.declare("mail", upsert=True, tags=["*"])
        later = hand.look()

    assert meanwhile == [good]
    assert sorted(later) == sorted([bad, good])


def test_a_worker_serves_the_queues_whose_tags_match_its_own() -> None:
    for name, tags in {"any": ["*"], "gpu": ["gpu"], "none": [], "other": ["tpu"], "w1": ["worker_id=w1"]}.items():
        Queue.objects.declare(name, tags=tags)
    held = {enqueue(1, queue_name=name)[0]: name for name in ("any", "gpu", "none", "other", "w1")}

    with Hand(tags=["gpu"], concurrency=10) as hand:
        served = {held[pk] for pk in hand.settle()}

    assert served == {"any", "gpu", "w1"}


def test_a_worker_looks_at_its_queues_once_a_second_however_seldom_it_polls() -> None:
    Queue.objects.declare("default")
    with Hand(poll_interval=60.0) as hand:
        hand.turn()
        pauses = [hand.exchange.run_once() for _ in range(3)]

    assert max(pauses) <= 1.0


def test_lanes_carry_the_settings_of_their_rows() -> None:
    Queue.objects.declare("mail", **GIVEN)
    Queue.objects.declare("plain")

    mail, plain = Queue.objects.lanes_for(["*"], ["*", "gpu"])

    assert mail._asdict() == {"name": "mail", **{name: STORED[name] for name in mail._fields[1:]}}
    assert set(plain._asdict().values()) == {"plain", None, ""}


# By the settings of the project


@pytest.mark.parametrize(
    "queues",
    [["mail", "letters"], {"mail": {}, "letters": {}}, {"mail": {"concurrency": 5, "tags": ["gpu"]}, "letters": {}}],
)
def test_the_settings_declare_queues_as_a_list_or_with_their_settings(settings: Any, queues: Any) -> None:
    settings.DJANGO_JOBS = {"QUEUES": queues}

    declare_known_queues()

    assert known_queues() >= {"default", "mail", "letters"}
    assert set(Queue.objects.values_list("name", flat=True)) == known_queues()
    wanted = queues["mail"] if isinstance(queues, dict) else {}
    assert Queue.objects.get(name="mail").concurrency == wanted.get("concurrency")
    assert Queue.objects.get(name="mail").tags == wanted.get("tags", ["*"])


def test_an_existing_row_stays_unless_its_entry_says_upsert(settings: Any) -> None:
    for name in ("mail", "letters"):
        Queue.objects.declare(name, concurrency=1, timeout=9)
    settings.DJANGO_JOBS = {
        "QUEUES": {"mail": {"concurrency": 5, "upsert": True}, "letters": {"concurrency": 5, "upsert": False}}
    }

    declare_known_queues()

    rows = Queue.objects.filter(name__in=["mail", "letters"]).order_by("name")
    assert list(rows.values_list("name", "concurrency", "timeout")) == [("letters", 1, 9.0), ("mail", 5, 9.0)]


def test_queues_without_settings_take_two_statements(settings: Any) -> None:
    settings.DJANGO_JOBS = {"QUEUES": {f"queue-{number}": {} for number in range(20)} | {"mail": {"concurrency": 5}}}
    Queue.objects.declare("mail")

    with CaptureQueriesContext(connection) as captured:
        declare_known_queues()

    # And one that asks which there are, for those with settings.
    statements = [query["sql"] for query in captured if "SAVEPOINT" not in query["sql"]]
    assert len(statements) <= 3
    assert Queue.objects.count() >= 21


@pytest.mark.parametrize(
    ("queues", "problem"),
    [
        ("mail", "DJANGO_JOBS['QUEUES'] must be a list, not 'mail'"),
        ({"mail"}, "DJANGO_JOBS['QUEUES'] must be a list, not {'mail'}"),
        ({5: {}}, "DJANGO_JOBS['QUEUES'] must have names of queues as keys; 5 is none"),
        ({"mail": None}, "DJANGO_JOBS['QUEUES']['mail'] must be a dict of settings"),
        ({"mail": 5}, "DJANGO_JOBS['QUEUES']['mail'] must be a dict of settings"),
        ({"mail": ["gpu"]}, "DJANGO_JOBS['QUEUES']['mail'] must be a dict of settings"),
    ],
)
def test_queues_of_another_form_are_refused(settings: Any, queues: Any, problem: str) -> None:
    settings.DJANGO_JOBS = {"QUEUES": queues}

    with pytest.raises(InvalidOption) as caught:
        conf.queues()

    assert problem in str(caught.value)
    assert [message.id for message in check_settings()] == ["django_jobs.E003"]


@pytest.mark.parametrize(
    ("queues", "problem"),
    [
        ({"mail": {"concurency": 5}}, "Queue 'mail': A queue has no setting 'concurency'. Did you mean 'concurrency'?"),
        ({"mail": {5: 5}}, "Queue 'mail': A queue has no setting 5."),
        ({"mail": {"concurrency": 0}}, "Queue 'mail': concurrency must be at least 1, not 0."),
        ({"mail": {"tags": ["("]}}, "Queue 'mail': tags has the expression '('"),
        ({"mail": {"rate_limit": 5}}, "Queue 'mail': rate_window is missing"),
        ({"mail": {"upsert": "yes"}}, "Queue 'mail': upsert must be True or False, not 'yes'."),
        ({"": {}}, "The name of a queue is a text of 1 to 100 characters, not ''."),
        (["x" * 101], "The name of a queue is a text of 1 to 100 characters"),
        (["a\x00"], "The name of a queue is a text of 1 to 100 characters"),
    ],
)
def test_an_entry_that_cannot_work_is_an_error_of_the_check_and_of_a_start(
    settings: Any, queues: Any, problem: str
) -> None:
    settings.DJANGO_JOBS = {"QUEUES": queues}

    with CaptureQueriesContext(connection) as captured:
        [message] = check_settings()
    with pytest.raises(InvalidOption) as caught:
        declare_known_queues()

    assert (message.id, len(captured)) == ("django_jobs.E011", 0)
    assert problem in message.msg
    assert "rate_limit" in str(message.hint)
    assert problem in str(caught.value)
    assert not Queue.objects.exists()


def test_entries_that_can_work_are_clean(settings: Any) -> None:
    settings.DJANGO_JOBS = {"QUEUES": {"mail": {**GIVEN, "upsert": True}, "letters": {}}}

    assert check_settings() == []


def test_every_problem_of_the_settings_is_told(settings: Any) -> None:
    settings.DJANGO_JOBS = {"QUEUES": {"mail": {"concurrency": 0}, "letters": {"tags": "gpu"}}}

    assert [message.id for message in check_settings()] == ["django_jobs.E011"] * 2


# Pausing all


def test_all_queues_are_paused_and_resumed(hints: list[str]) -> None:
    Queue.objects.declare_all(["a", "b", "c"])
    Queue.objects.pause("b", "first")
    hints.clear()

    paused = Queue.objects.pause_all("Release")
    reasons = dict(Queue.objects.values_list("name", "paused_reason"))
    during = Queue.objects.served_by(["*"])
    again = Queue.objects.pause_all("again")
    resumed = Queue.objects.resume_all()

    assert (paused, again, resumed, during) == (2, 0, 3, [])
    assert reasons == {"a": "Release", "b": "first", "c": "Release"}
    assert Queue.objects.served_by(["*"]) == ["a", "b", "c"]
    assert hints == ["queues", "queues"]
    assert Queue.objects.resume_all() == 0


def test_a_reason_that_cannot_be_stored_is_refused() -> None:
    Queue.objects.declare("mail")

    for reason in ("x" * 256, "a\x00"):
        with pytest.raises(InvalidOption, match="at most 255 characters"):
            Queue.objects.pause("mail", reason)

    assert not Queue.objects.paused().exists()
