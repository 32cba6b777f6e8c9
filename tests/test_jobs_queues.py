"""``manage.py jobs queues``: what it does, what it prints, and with which code it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_jobs.models import Job, Queue
from django_jobs.states import JobState

from .exchanges import enqueue
from .processes import Command
from .rows import claim, job_in, start_worker
from .test_admin_queue_settings import STORED

pytestmark = pytest.mark.django_db


def queues(*arguments: str) -> str:
    """Run the command and return what it prints."""
    output = StringIO()
    call_command("jobs", "queues", *arguments, stdout=output)
    return output.getvalue()


def answer(*arguments: str) -> Any:
    return json.loads(queues(*arguments, "--json"))


def refused(*arguments: str) -> tuple[int, str]:
    """Return the exit code with which the command refuses, and what it says."""
    with pytest.raises(CommandError) as caught:
        queues(*arguments)
    return caught.value.returncode, str(caught.value)


def mail() -> Queue:
    return Queue.objects.get(name="mail")


# list


def test_the_list_shows_each_queue_with_its_state() -> None:
    start_worker(queues=["mail"])
    Queue.objects.declare("mail", max_running=5)
    Queue.objects.declare("letters", tags=["gpu", "tpu"])
    Queue.objects.declare("none", tags=[])
    Queue.objects.pause("letters")
    enqueue(3, queue_name="mail")
    claim(limit=1, queues=["mail"])
    enqueue(1, queue_name="none")

    lines = [line.split("  ") for line in queues().splitlines()]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]

    assert table == [
        ["QUEUE", "STATE", "READY", "RUNNING", "WORKERS", "TAGS"],
        ["letters", "paused", "0", "0", "0", "gpu tpu"],
        ["mail", "open", "2", "1 / 5", "1", "*"],
        ["none", "problem", "1", "0", "0"],
        [],
        ["none: Jobs are ready, and no live worker takes them."],
    ]
    assert queues("list") == queues()


@pytest.mark.parametrize("arguments", [["--json"], ["--json", "list"], ["list", "--json"]])
def test_the_list_as_json_has_everything(arguments: list[str]) -> None:
    start_worker()
    Queue.objects.declare("mail", keep_failed=timedelta(hours=1), concurrency=5)
    Queue.objects.pause("mail", "Strike", datetime(2100, 1, 2, tzinfo=UTC))
    enqueue(1, queue_name="mail")

    [row] = json.loads(queues(*arguments))

    assert row["oldest_wait"] >= 0
    settings = row.pop("settings")
    assert row | {"oldest_wait": 0} == {
        "name": "mail",
        "is_paused": True,
        "paused_reason": "Strike",
        "resume_at": "2100-01-02T00:00:00Z",
        "problem": "",
        "ready": 1,
        "oldest_wait": 0,
        "running": 0,
        "workers": ["w1"],
    }
    assert (settings["keep_failed"], settings["concurrency"], settings["tags"]) == (3600.0, 5, ["*"])


def test_the_list_names_what_is_wrong_with_a_row() -> None:
    Queue.objects.declare("mail")
    Queue.objects.update(concurrency=0)

    assert "mail: concurrency must be at least 1" in queues("list")


# pause and resume


def test_a_queue_is_paused_and_resumed() -> None:
    Queue.objects.declare_all(["mail", "letters"])

    told = queues("pause", "mail", "--reason", "Strike")
    paused = list(Queue.objects.paused().values_list("name", "paused_reason", "resume_at"))
    told += queues("resume", "mail")

    assert told == "Queue 'mail' was paused.\nQueue 'mail' was resumed.\n"
    assert paused == [("mail", "Strike", None)]
    assert not Queue.objects.paused().exists()


def test_all_queues_are_paused_and_resumed() -> None:
    Queue.objects.declare_all(["mail", "letters"])

    told = queues("pause", "--all")
    paused = Queue.objects.paused().count()
    told += queues("resume", "--all")

    assert told == "2 queues were paused.\n2 queues were resumed.\n"
    assert (paused, Queue.objects.paused().count()) == (2, 0)


def test_what_was_paused_and_resumed_is_told_as_json() -> None:
    Queue.objects.declare_all(["mail", "letters"])

    assert answer("pause", "mail") == {"name": "mail", "paused": 1}
    assert answer("pause", "--all") == {"name": None, "paused": 1}
    assert answer("resume", "mail") == {"name": "mail", "resumed": 1}
    assert answer("resume", "--all") == {"name": None, "resumed": 1}


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2100-01-02T03:04", datetime(2100, 1, 2, 3, 4, tzinfo=UTC)),
        ("2100-01-02T03:04:05Z", datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2100-01-02 03:04:05+02:00", datetime(2100, 1, 2, 1, 4, 5, tzinfo=UTC)),
    ],
)
def test_a_pause_ends_at_a_time(text: str, end: datetime) -> None:
    Queue.objects.declare("mail")

    queues("pause", "mail", "--resume-at", text)

    assert mail().resume_at == end


def test_a_pause_ends_after_some_seconds_of_the_databases_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Queue.objects.declare("mail")
    began = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: datetime(2019, 1, 1, tzinfo=UTC))

    queues("pause", "mail", "--for", "90")

    end = mail().resume_at
    assert end is not None
    assert timedelta(seconds=89) < end - began < timedelta(seconds=150)


def test_settings_that_cannot_be_read_are_told_where_a_queue_is_missing(settings: Any) -> None:
    settings.DJANGO_JOBS = {"QUEUES": "mail"}

    assert refused("pause", "mail") == (2, "DJANGO_JOBS['QUEUES'] must be a list, not 'mail'.")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["pause", "mial"], 1, "There is no queue 'mial'. Did you mean 'mail'?"),
        (["resume", "zzz"], 1, "There is no queue 'zzz'."),
        (["pause", "default"], 1, "There is no queue 'default' yet: it is declared when a worker starts, or by"),
        (["resume", "mail"], 1, "Queue 'mail' is open already."),
        (["resume", "--all"], 1, "Every queue is open already."),
        (["pause", "mail", "--resume-at", "2020-01-01T00:00"], 1, "The pause has ended already"),
        (["pause"], 2, "Name one queue, or give --all."),
        (["pause", "mail", "--all"], 2, "Name one queue, or give --all."),
        (["resume"], 2, "Name one queue, or give --all."),
        (["pause", "mail", "--reason", "x" * 256], 2, "at most 255 characters"),
        (["declare", "mail", "--concurrency", "5"], 1, "Queue 'mail' exists and keeps its concurrency. Give --upsert"),
        (["declare", "new", "--tag", "("], 2, "Queue 'new': tags has the expression '('"),
        (["declare", "new", "--tag", "x" * 501], 2, "has an expression of 501 characters"),
        (["declare", "new", "--rate-limit", "5"], 2, "rate_window is missing"),
        (["declare", "new", "--concurrency", "0"], 2, "pause the queue"),
        (["declare", "new", "--timeout", "nan"], 2, "timeout must be between"),
        (["declare", "new", "--executor", "process"], 2, "executor must be one of"),
        (["declare", "x" * 101], 2, "The name of a queue is a text of 1 to 100 characters"),
        (["delete", "mial", "--jobs", "keep"], 1, "There is no queue 'mial'. Did you mean 'mail'?"),
    ],
)
def test_what_cannot_be_done_is_told_with_a_code(arguments: list[str], code: int, text: str) -> None:
    Queue.objects.declare("mail")

    told = refused(*arguments)

    assert told[0] == code
    assert text in told[1]
    assert list(Queue.objects.values_list("name", "concurrency")) == [("mail", None)]
    assert not Queue.objects.paused().exists()


def test_what_is_paused_already_stays_as_it_is() -> None:
    Queue.objects.declare("mail")
    Queue.objects.pause("mail", "first")

    assert refused("pause", "mail", "--reason", "second") == (1, "Queue 'mail' is paused already.")
    assert refused("pause", "--all") == (1, "Every queue is paused already.")
    assert mail().paused_reason == "first"


@pytest.mark.parametrize(
    "arguments",
    [
        ["stop", "mail"],
        ["pause", "mail", "--resume-at", "tomorrow"],
        ["pause", "mail", "--resume-at", "2020-13-01T00:00"],
        ["pause", "mail", "--for", "0"],
        ["pause", "mail", "--for", "-5"],
        ["pause", "mail", "--for", "nan"],
        ["pause", "mail", "--for", "1e300"],
        ["pause", "mail", "--for", "5", "--resume-at", "2100-01-01T00:00"],
        ["declare"],
        ["declare", "mail", "--concurrency", "many"],
        ["declare", "mail", "--timeout", "soon"],
        ["delete", "mail"],
        ["delete", "mail", "--jobs", "drop"],
    ],
)
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    Queue.objects.declare("mail")

    with pytest.raises(CommandError):
        queues(*arguments)

    assert Queue.objects.unpaused().count() == 1


# declare

ALL = STORED | {"keep_succeeded": 3600.0, "keep_failed": 0.5}
FLAGS = [
    "--tag=gpu",
    "--tag=zone=.*",
    "--concurrency=2",
    "--max-running=3",
    "--rate-limit=4",
    "--rate-window=60",
    "--executor=thread",
    "--timeout=5.5",
    "--poll-interval=0.25",
    "--raise-after=3600",
    "--raise-by=6",
    "--keep-succeeded=3600",
    "--keep-failed=0.5",
]


def test_a_queue_is_declared_with_every_setting() -> None:
    told = answer("declare", "mail", *FLAGS)

    assert told == {"name": "mail", "is_new": True, "changed": [], "left": [], "settings": ALL}
    assert mail().keep_failed == timedelta(seconds=0.5)


def test_a_queue_that_is_as_given_already_is_done() -> None:
    queues("declare", "mail", *FLAGS)

    assert queues("declare", "mail") == "Queue 'mail' is as it was.\n"
    assert queues("declare", "mail", *FLAGS) == "Queue 'mail' is as it was.\n"


def test_an_upsert_changes_the_given_settings_and_no_other() -> None:
    queues("declare", "mail", *FLAGS)

    told = answer("declare", "mail", "--upsert", "--concurrency=9", "--timeout=none", "--max-running=3")

    assert told["changed"] == ["concurrency", "timeout"]
    assert told["settings"] == ALL | {"concurrency": 9, "timeout": None}


def test_a_queue_may_be_left_without_workers() -> None:
    queues("declare", "mail", "--no-tags")

    assert mail().tags == []


# delete


@pytest.mark.parametrize(
    ("jobs", "told", "left"),
    [
        ("keep", {"cancelled": 0, "stopping": 0, "deleted": 0}, ["failed", "ready", "running"]),
        ("cancel", {"cancelled": 1, "stopping": 1, "deleted": 0}, ["cancelled", "failed", "running"]),
        ("delete", {"cancelled": 1, "stopping": 1, "deleted": 2}, ["running"]),
    ],
)
def test_a_deletion_says_what_became_of_the_jobs(jobs: str, told: dict[str, int], left: list[str]) -> None:
    Queue.objects.declare_all(["mail", "letters"])
    for state in (JobState.RUNNING, JobState.FAILED, JobState.READY):
        job_in(state, queue_name="mail")

    assert answer("delete", "mail", "--jobs", jobs) == {"name": "mail", "is_removed": True, **told}

    assert list(Job.objects.order_by("state").values_list("state", flat=True)) == left
    assert list(Queue.objects.values_list("name", flat=True)) == ["letters"]


def test_a_deletion_is_told_in_words() -> None:
    Queue.objects.declare("mail")

    told = queues("delete", "mail", "--jobs=keep")

    assert told == "Queue 'mail' was deleted. Jobs cancelled: 0, asked to stop: 0, deleted: 0.\n"


# As a program

PROGRAM = [
    (["declare", "mail", "--upsert", "--concurrency=5", "--json"], 0, '"is_new": true'),
    (["pause", "mial"], 1, "There is no queue 'mial'."),
    (["pause"], 2, "Name one queue, or give --all."),
    (["declare", "mail", "--tag=("], 2, "tags has the expression '('"),
    (["delete", "mail"], 2, "--jobs"),
]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_codes_are_those_of_the_process(project_env: dict[str, str], tmp_path: Any) -> None:
    for number, (arguments, code, text) in enumerate(PROGRAM):
        command = Command(["jobs", "queues", *arguments], project_env, tmp_path / f"{number}.log")

        assert command.wait() == code, command.output()
        assert text in command.output()
        assert "Traceback" not in command.output()
    assert mail().concurrency == 5


@pytest.mark.parametrize("name", ["list", "pause", "resume", "declare", "delete"])
def test_the_help_says_the_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        queues(name, "--help")

    assert "Exit codes: 0 " in " ".join(capsys.readouterr().out.split())
