"""``manage.py jobs bench``: its figures, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import Error, connection, connections, router
from django.db.backends.signals import connection_created
from django.test import override_settings

from django_jobs import conf
from django_jobs.bench import measures
from django_jobs.bench.measures import MEASURES, Bench, Figures, MeasureFailed
from django_jobs.compat import task_backends
from django_jobs.models import Job, Lease, Queue
from django_jobs.models import Worker as WorkerRow
from django_jobs.models.sandbox import PREFIX
from django_jobs.task import declared_names

from . import tasks
from .processes import Command, wait_until

IS_POSTGRESQL = connection.vendor == "postgresql"
only_postgresql = pytest.mark.skipif(not IS_POSTGRESQL, reason="schemas are PostgreSQL's")

FEW = ("--jobs=12", "--repeat=1")

pytestmark = pytest.mark.slow


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Open the test database as it is: a test of Django's refuses aliases that it has not known at its beginning."""
    monkeypatch.setenv("DJANGO_JOBS_POLL_INTERVAL", "0.05")
    with django_db_blocker.unblock():
        yield
        for model in (Job, Queue, WorkerRow, Lease):
            model._base_manager.using("default").all().delete()
        connections.close_all()


@pytest.fixture
def elsewhere(database: None, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Have an alias ``elsewhere``, and the jobs in it. On SQLite it is a file without any table."""
    configured = {**connection.settings_dict, "OPTIONS": dict(connection.settings_dict["OPTIONS"])}
    if not IS_POSTGRESQL:
        configured["NAME"] = str(tmp_path / "elsewhere.sqlite3")
    connections.settings["elsewhere"] = configured
    with conf.changed(DATABASE="elsewhere"):
        yield configured
    with suppress(AttributeError):
        connections["elsewhere"].close()
        del connections["elsewhere"]
    del connections.settings["elsewhere"]


def bench(*arguments: str) -> str:
    """Run the command and return what it prints."""
    output = StringIO()
    call_command("jobs", "bench", *arguments, stdout=output, stderr=StringIO())
    return output.getvalue()


def refused(*arguments: str) -> str:
    """Return why the command refuses."""
    with pytest.raises(CommandError) as caught:
        bench(*arguments)
    return str(caught.value)


def places() -> list[str]:
    """Return the schemas, or the folders, of benches."""
    if IS_POSTGRESQL:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE %s", [PREFIX + "%"])
            return [name for (name,) in cursor.fetchall()]
    folders = (Path(str(connection.settings_dict["NAME"])).parent, Path(tempfile.gettempdir()))
    return [str(path) for folder in folders for path in folder.glob(PREFIX + "*")]


def sessions() -> int:
    """Return how many other sessions the server has of ours; 0 where there is no server."""
    if not IS_POSTGRESQL:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return int(cursor.fetchone()[0])


def project() -> tuple[Any, ...]:
    """Return all that a bench must leave as it was."""
    return (
        list(Job.objects.order_by("pk").values()),
        [model._base_manager.using("default").count() for model in (Queue, WorkerRow, Lease)],
        list(connections),
        list(task_backends),
        router.routers,
        conf.database(),
        declared_names(),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        places(),
    )


def instead(monkeypatch: pytest.MonkeyPatch, name: str, take: Callable[[Bench], Figures]) -> None:
    """Let a measure do something else."""
    monkeypatch.setitem(MEASURES, name, replace(MEASURES[name], take=take))


# Figures


@pytest.mark.usefixtures("database")
def test_every_measure_has_its_figures_and_nothing_is_left() -> None:
    tasks.noop.enqueue()
    before, others = project(), sessions()

    answer = json.loads(bench(*FEW, "--json"))

    assert project() == before
    wait_until(lambda: sessions() <= others, message="the sessions of the bench to end")
    assert answer["measures"].keys() == MEASURES.keys()
    for name, measure in answer["measures"].items():
        assert measure["jobs"] == 12
        assert measure["figures"].keys() == MEASURES[name].units.keys()
        for summary in measure["figures"].values():
            assert summary["min"] == summary["median"] == summary["max"] >= 0
    assert 0 < answer["measures"]["naps"]["figures"]["efficiency"]["median"] <= 1
    assert (answer["jobs"], answer["repeat"], answer["database"]) == (12, 1, "default")


@pytest.mark.usefixtures("database")
def test_the_table_says_what_is_made_and_has_a_line_for_each_figure() -> None:
    lines = bench("--jobs=3", "--repeat=2", "--measure=drain", "--measure=round-trip").splitlines()

    place = "a schema of its own" if IS_POSTGRESQL else "a file of its own"
    assert lines[0].startswith(f"Measuring {connection.display_name} ")
    assert place in lines[0]
    assert lines[1].split() == ["measure", "median", "min", "max", "unit"]
    assert [line[:12].rstrip() for line in lines[2:]] == ["the database", "drain 3 no-o", ""]
    assert [line.split()[-1] for line in lines[2:]] == ["ms", "jobs/s", "CPU/job"]


@pytest.mark.usefixtures("database")
def test_medians_are_taken_over_the_repetitions_and_measures_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    values, calls = iter([5.0, 1.0, 3.0]), []
    instead(monkeypatch, "drain", lambda bench: calls.append("drain") or {"jobs/s": next(values), "cpu_us/job": 1.0})
    instead(monkeypatch, "naps", lambda bench: calls.append("naps") or {"efficiency": 1.0})

    answer = json.loads(bench("--repeat=3", "--measure=drain", "--measure=naps", "--json"))

    assert answer["measures"]["drain"]["figures"]["jobs/s"] == {"median": 3.0, "min": 1.0, "max": 5.0}
    assert calls == ["drain", "naps"] * 3


@pytest.mark.parametrize("use_tz", [False, True])
def test_it_works_in_another_database_and_without_time_zones(elsewhere: dict[str, Any], use_tz: bool) -> None:
    with override_settings(USE_TZ=use_tz):
        answer = json.loads(bench(*FEW, "--measure=drain", "--measure=enqueue", "--json"))

    assert answer["database"] == "elsewhere"
    assert answer["measures"]["drain"]["figures"]["jobs/s"]["median"] > 0
    assert places() == []


@pytest.mark.usefixtures("database")
def test_a_project_without_a_backend_of_ours_and_with_middleware_and_a_router_is_left_alone() -> None:
    class Elsewhere:
        def db_for_write(self, model: Any, **hints: Any) -> str:
            raise AssertionError(model)

        def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
            return False

    routers, router.routers = router.routers, [Elsewhere()]
    try:
        with conf.changed(MIDDLEWARE=["tests.nowhere"], DUTIES=[("x", 1, "tests.nowhere")], QUEUES=["other"]):
            answer = json.loads(bench(*FEW, "--measure=drain", "--json"))
    finally:
        router.routers = routers

    assert "figures" in answer["measures"]["drain"]


@only_postgresql
def test_the_options_of_the_project_are_kept(elsewhere: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere["OPTIONS"]["options"] = "-c work_mem=3MB -c search_path=public"
    shown: list[tuple[str, str]] = []

    def look(bench: Bench) -> Figures:
        with connections[conf.database()].cursor() as cursor:
            cursor.execute("SELECT current_setting('work_mem'), current_setting('search_path')")
            shown.append(cursor.fetchone())
        return {"efficiency": 1.0}

    instead(monkeypatch, "naps", look)
    bench("--repeat=1", "--measure=naps")

    assert shown[0][0] == "3MB"
    assert shown[0][1].startswith(PREFIX)


# Failures


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("error", [MeasureFailed("Nothing moved."), Error("Nothing moved.")])
def test_a_measure_that_fails_says_why_and_the_others_are_taken(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(bench: Bench) -> Figures:
        bench.tasks.noop.enqueue()
        raise error

    instead(monkeypatch, "drain", fail)
    output, before = StringIO(), project()

    with pytest.raises(CommandError) as caught:
        call_command("jobs", "bench", *FEW, "--measure=drain", "--measure=enqueue", "--json", stdout=output)

    assert (caught.value.returncode, str(caught.value)) == (1, "No figures for: drain.")
    answer = json.loads(output.getvalue())["measures"]
    assert answer["drain"] == {"failed": "Nothing moved."}
    assert "figures" in answer["enqueue"]
    assert project() == before


@pytest.mark.usefixtures("database")
def test_a_job_that_fails_fails_the_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def drain(bench: Bench) -> Figures:
        # Without its argument.
        return measures.drain(replace(bench, tasks=bench.tasks._replace(noop=bench.tasks.stamp)))

    instead(monkeypatch, "drain", drain)
    output = StringIO()

    with pytest.raises(CommandError):
        call_command("jobs", "bench", *FEW, "--measure=drain", stdout=output)

    assert "failed: 1 jobs failed." in output.getvalue()
    assert places() == []


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whatever_is_raised_nothing_is_left(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def fail(bench: Bench) -> Figures:
        with measures._worker(bench):
            raise error

    instead(monkeypatch, "drain", fail)
    before, others = project(), sessions()

    with pytest.raises(error):
        bench(*FEW, "--measure=drain")

    assert project() == before
    wait_until(lambda: sessions() <= others, message="the sessions of the bench to end")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_a_second_one_does_not_hinder_the_cleaning(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def be_ended(bench: Bench) -> Figures:
        with measures._worker(bench):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            return measures.time_starts(bench)

    instead(monkeypatch, "drain", be_ended)
    before = project()

    with pytest.raises(CommandError, match=f"Ended by {number.name}") as caught:
        bench(*FEW, "--measure=drain")

    assert caught.value.returncode == 128 + number
    assert project() == before


def test_a_process_that_gets_ctrl_c_leaves_nothing_behind(project_env: dict[str, str], tmp_path: Path) -> None:
    command = Command(["jobs", "bench", "--jobs=1000000", "--settings=tests.settings"], project_env, tmp_path / "log")
    wait_until(places, message="the place of the bench")

    command.send_signal(signal.SIGINT)

    assert command.wait() == 130
    assert "Ended by SIGINT" in command.output()
    assert "Traceback" not in command.output()
    assert places() == []


# Refusals


@pytest.mark.parametrize("flag", ["--jobs", "--repeat"])
@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_number_that_cannot_work_is_refused(flag: str, number: str) -> None:
    assert refused(f"{flag}={number}") == f"{flag} must be at least 1, not {number}."


@pytest.mark.parametrize("flag", ["--jobs", "--repeat"])
def test_what_is_no_number_is_refused(flag: str) -> None:
    assert refused(f"{flag}=many").endswith(f"argument {flag}: invalid int value: 'many'")


def test_an_unknown_measure_is_refused_with_a_suggestion() -> None:
    reason = refused("--measure=drian")

    assert reason.startswith("--measure 'drian': there is no such measure. Did you mean 'drain'? There are: ")
    assert all(name in reason for name in MEASURES)


def test_an_unknown_command_and_none_are_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice: 'bnch'"):
        call_command("jobs", "bnch")
    with pytest.raises(CommandError, match="required: COMMAND"):
        call_command("jobs")


def test_a_bad_worker_option_is_named_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_JOBS_POLL_INTERVAL", "soon")

    assert refused() == "DJANGO_JOBS_POLL_INTERVAL='soon' is not a number."


def test_a_database_that_is_none_is_named() -> None:
    with conf.changed(DATABASE="nowhere"):
        assert refused() == "DJANGO_JOBS['DATABASE'] names 'nowhere', which DATABASES does not have."


def test_a_database_that_cannot_be_used_is_named(elsewhere: dict[str, Any]) -> None:
    elsewhere["NAME"] = "/no/such/place" if not IS_POSTGRESQL else "no_such_database"

    assert refused().startswith("The database 'elsewhere' cannot be used: ")


@pytest.mark.django_db
def test_it_does_not_run_inside_a_transaction() -> None:
    assert refused().startswith("A sandbox cannot be made inside a transaction")


@only_postgresql
def test_a_user_who_may_not_create_schemas_is_told_what_to_grant(elsewhere: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE bench_guest")
        elsewhere["OPTIONS"]["assume_role"] = "bench_guest"
        try:
            reason = refused()
        finally:
            cursor.execute("DROP ROLE bench_guest")

    name = connection.settings_dict["NAME"]
    assert reason == (
        f'The user "bench_guest" may not create a schema in the database "{name}". '
        f'As its owner, run: GRANT CREATE ON DATABASE "{name}" TO "bench_guest";'
    )


@only_postgresql
@pytest.mark.usefixtures("database")
def test_a_search_path_that_others_set_is_noticed_before_a_row_is_written() -> None:
    def set_path(connection: Any, **arguments: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = public")

    before = project()
    connection_created.connect(set_path)
    try:
        reason = refused(*FEW)
    finally:
        connection_created.disconnect(set_path)

    assert "does not begin in the schema" in reason
    assert "but in 'public'" in reason
    assert project() == before
