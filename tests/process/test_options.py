"""What ``runworker``'s options do: which queues it serves, when it ends, when it refuses to start, what it reloads."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
from django.db import connection

from django_jobs.models import Job, Queue, Worker
from django_jobs.states import JobState
from tests import jobs
from tests.processes import Command, wait_until, workers_of

from .conftest import PATIENT, Start
from .ledger import Ledger
from .observe import (
    PATIENCE,
    keep_busy_and_claim_ahead,
    row,
    state_of,
    states_of,
    wait_for_state,
    wait_until_finished,
    worker_of,
)


@pytest.fixture
def start(start: Start) -> Start:
    """Leases are not what these tests are about."""
    return partial(start, *PATIENT)


def test_burst_runs_all_that_is_ready_and_ends(start: Start, ledger: Ledger) -> None:
    ready = jobs.touch.enqueue_many([((), {})] * 50)
    undeclared = jobs.touch.using(queue_name="nobody knows").enqueue()
    later = jobs.touch.using(run_after=jobs.HOUR).enqueue()

    command = start("--burst", "--processes=2", ready=False)

    assert command.wait() == 0
    assert states_of([*ready, undeclared]) == {JobState.SUCCEEDED}
    assert state_of(later) == JobState.SCHEDULED
    assert ledger.count("ran") == 51


def test_burst_goes_on_after_a_job_that_kills_its_worker(start: Start, ledger: Ledger) -> None:
    poison = jobs.kill_worker.using(max_attempts=1).enqueue("exit")
    others = jobs.touch.enqueue_many([((), {})] * 5)

    command = start("--burst", "--concurrency=1", ready=False)

    assert command.wait() == 0
    assert state_of(poison) == JobState.FAILED
    assert states_of(others) == {JobState.SUCCEEDED}


def test_once_runs_one_job_and_ends(start: Start, ledger: Ledger) -> None:
    first, second = jobs.touch.enqueue(), jobs.touch.enqueue()

    command = start("--once", ready=False)

    assert command.wait() == 0
    assert (state_of(first), state_of(second)) == (JobState.SUCCEEDED, JobState.READY)
    assert ledger.count("ran") == 1


def test_once_ends_when_there_is_no_job(start: Start) -> None:
    command = start("--once", ready=False)

    assert command.wait() == 0


def test_a_worker_serves_the_queues_that_its_patterns_name(start: Start) -> None:
    names = ("mail", "mail.bulk", "mail.slow", "default", "reports")
    Queue.objects.declare_all(["reports", "mail.slow"])
    sent = {name: jobs.touch.using(queue_name=name).enqueue() for name in names}

    command = start("--burst", "--queue=mail*", "--queue=reports", "--queue=!mail.slow", ready=False)

    assert command.wait() == 0
    served = {name for name, job in sent.items() if state_of(job) == JobState.SUCCEEDED}
    assert served == {"mail", "mail.bulk", "reports"}
    assert {row(sent[name]).attempt for name in ("mail.slow", "default")} == {0}


def test_a_worker_that_leaves_a_queue_out_serves_all_others(start: Start) -> None:
    sent = {name: jobs.touch.using(queue_name=name).enqueue() for name in ("mail", "default", "nobody knows")}

    command = start("--burst", "--queue=!mail", ready=False)

    assert command.wait() == 0
    assert {name for name, job in sent.items() if state_of(job) == JobState.SUCCEEDED} == {"default", "nobody knows"}


class TestPause:
    def test_a_paused_queue_is_never_claimed(self, start: Start) -> None:
        Queue.objects.declare("mail")
        Queue.objects.pause("mail")
        paused = jobs.touch.using(queue_name="mail").enqueue()
        other = jobs.touch.enqueue()

        command = start("--burst", ready=False)

        assert command.wait() == 0
        assert state_of(other) == JobState.SUCCEEDED
        assert (state_of(paused), row(paused).attempt) == (JobState.READY, 0)

    def test_a_pause_reaches_a_worker_that_runs_and_so_does_its_end(self, start: Start, ledger: Ledger) -> None:
        command = start()
        seconds: list[float] = []

        # The best of a few: the machine of a test run may be busy with something else.
        while len(seconds) < 4 and not any(late < 2 for late in seconds):
            Queue.objects.pause("default")
            wait_until_the_worker_has_looked(command)
            job = jobs.touch.enqueue()
            marker = jobs.touch.using(queue_name="mail").enqueue()
            wait_for_state(marker, JobState.SUCCEEDED)
            resumed = time.monotonic()
            Queue.objects.resume("default")
            wait_for_state(job, JobState.SUCCEEDED)
            (entry,) = ledger.entries("ran", job)
            seconds.append(entry.at - resumed)

        assert all(late >= 0 for late in seconds)
        assert min(seconds) < 2

    def test_jobs_of_a_paused_queue_that_have_not_begun_are_given_back(self, start: Start, ledger: Ledger) -> None:
        start()
        busy, waiting = keep_busy_and_claim_ahead()

        Queue.objects.pause("default")

        wait_until(lambda: states_of(waiting) == {JobState.READY}, message="what had not begun to be given back")
        ledger.open_gate()
        wait_until_finished(busy)
        assert ledger.count("ran") == 0
        Queue.objects.resume("default")
        wait_until_finished(waiting)
        assert set(ledger.times_run().values()) == {1}


def wait_until_the_worker_has_looked(command: Command) -> None:
    """Wait until the worker has looked at its queues since now.

    It does so just before it writes the row about itself: the look before the second write from now began after now.
    """
    for _ in range(2):
        before = worker_of(command).loops
        wait_until(lambda before=before: worker_of(command).loops != before, message="a report of the worker")


class TestStart:
    """A worker that cannot work says why, and its exit code is not 0."""

    def refuse(self, start: Start, *arguments: str, **env: str) -> str:
        command = start(*arguments, env=env, ready=False)
        assert command.wait() == 1
        assert "Traceback" not in command.output()
        assert not Worker.objects.exists()
        return command.output()

    @pytest.mark.parametrize("processes", [0, 1])
    def test_a_database_without_our_tables_is_refused(
        self, start: Start, project_env: dict[str, str], tmp_path: Path, processes: int
    ) -> None:
        url = another_database(project_env["DATABASE_URL"], tmp_path / "empty.sqlite3")

        told = self.refuse(start, f"--processes={processes}", DATABASE_URL=url)

        assert "lacks migrations of django_jobs: 0001_initial" in told
        assert "manage.py migrate" in told

    @pytest.mark.parametrize("processes", [0, 1])
    def test_a_database_that_cannot_be_reached_is_refused(self, start: Start, tmp_path: Path, processes: int) -> None:
        nowhere = {"sqlite": f"sqlite:///{tmp_path}/no/such/directory/db.sqlite3"}
        url = nowhere.get(connection.vendor, "postgres://nobody:nothing@127.0.0.1:9/nothing")

        told = self.refuse(start, f"--processes={processes}", DATABASE_URL=url)

        assert "The database 'default' cannot be used" in told

    def test_a_lease_that_is_not_longer_than_the_heartbeat_is_refused(self, start: Start) -> None:
        told = self.refuse(start, "--heartbeat-interval=10", "--heartbeat-timeout=10")

        assert "HEARTBEAT_TIMEOUT (10 s) must be longer than HEARTBEAT_INTERVAL (10 s)" in told

    def test_an_unknown_queue_is_refused_with_a_suggestion(self, start: Start) -> None:
        told = self.refuse(start, "--queue=defualt")

        assert "Did you mean 'default'?" in told

    def test_an_option_that_cannot_work_is_refused(self, start: Start) -> None:
        told = self.refuse(start, "--concurrency=0")

        assert "--concurrency must be at least 1" in told

    def test_a_bad_option_in_the_environment_is_refused(self, start: Start) -> None:
        told = self.refuse(start, DJANGO_JOBS_PROCESSES="many")

        assert "DJANGO_JOBS_PROCESSES='many' is not a whole number" in told

    def test_reloading_without_a_worker_process_is_refused(self, start: Start) -> None:
        told = self.refuse(start, "--reload", "--processes=0")

        assert "--reload needs a worker process" in told

    def test_a_worker_id_that_a_live_process_has_is_refused(self, start: Start) -> None:
        first = start("--worker-id=mine", "--processes=0")

        second = start("--worker-id=mine", "--processes=0", ready=False)

        assert second.wait() == 1
        assert "The worker id 'mine' is in use" in second.output()
        assert worker_of(first).worker_id == "mine"


def another_database(url: str, file: Path) -> str:
    """Return the address of a database without tables, on the server of this one if it has any."""
    if connection.vendor == "sqlite":
        return f"sqlite:///{file}"
    return url.rpartition("/")[0] + "/postgres"


RELOADED = """
from django_jobs import task
from tests.jobs import _until, note

@task
def answer():
    return {answer!r}

@task
def hold():
    note("begin")
    for _ in _until("gate"):
        pass
    note("end")
"""


@pytest.mark.slow
class TestReload:
    @pytest.fixture
    def app(self, tmp_path: Path) -> Path:
        """Return the tasks module of an app, installed by the settings of ``env``."""
        tasks = tmp_path / "reloaded" / "tasks.py"
        tasks.parent.mkdir()
        (tasks.parent / "__init__.py").touch()
        tasks.write_text(RELOADED.format(answer="old"))
        (tmp_path / "reloaded_settings.py").write_text(
            "from tests.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'reloaded']\n"
        )
        return tasks

    @pytest.fixture
    def env(self, app: Path) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": "reloaded_settings", "PYTHONPATH": str(app.parent.parent)}

    def answer(self) -> object:
        job = Job.objects.create(task_path="reloaded.tasks.answer")
        wait_for_state(job, JobState.SUCCEEDED)
        return row(job).result.value

    def test_a_changed_file_replaces_the_workers_when_their_jobs_are_done(
        self, start: Start, ledger: Ledger, app: Path, env: dict[str, str]
    ) -> None:
        command = start("--reload", env=env)
        assert self.answer() == "old"
        held = Job.objects.create(task_path="reloaded.tasks.hold")
        wait_until(lambda: ledger.count("begin") == 1)
        old = worker_of(command)

        app.write_text(RELOADED.format(answer="another one"))

        wait_until(lambda: Worker.objects.filter(pk=old.pk, state="stopping").exists(), timeout=PATIENCE)
        ledger.open_gate()
        wait_for_state(held, JobState.SUCCEEDED)
        assert self.answer() == "another one"
        assert worker_of(command) != old

    def test_a_file_that_does_not_import_is_tried_again_when_it_has_changed(
        self, start: Start, app: Path, env: dict[str, str]
    ) -> None:
        command = start("--reload", env=env)
        old = worker_of(command)
        app.write_text("this is no Python")
        wait_until(lambda: command.output().count("SyntaxError") >= 3, timeout=PATIENCE, message="a few tries")

        app.write_text(RELOADED.format(answer="mended"))

        assert self.answer() == "mended"
        assert worker_of(command) != old
        assert command.returncode is None


@pytest.mark.slow
def test_two_pools_on_one_host_each_run_what_is_theirs(start: Start, ledger: Ledger) -> None:
    Queue.objects.declare_all(["mail", "reports"])
    pools = {
        "mail": start("--queue=mail", "--processes=0"),
        "urgent": start("--queue=!mail", "--min-priority=10", "--processes=0"),
        "rest": start("--queue=!mail", "--max-priority=9", "--processes=2", workers=2),
    }
    wanted = {
        "mail": [jobs.touch.using(queue_name="mail", priority=p).enqueue() for p in (-100, 0, 50) * 5],
        "urgent": [
            jobs.touch.using(queue_name=n, priority=p).enqueue() for n in ("default", "reports") for p in (10, 100) * 5
        ],
        "rest": [
            jobs.touch.using(queue_name=n, priority=p).enqueue() for n in ("default", "reports") for p in (-100, 9) * 5
        ],
    }

    wait_until_finished([job for each in wanted.values() for job in each])

    workers = {name: set(workers_of(pool).values_list("worker_id", flat=True)) for name, pool in pools.items()}
    assert [len(ids) for ids in workers.values()] == [1, 1, 2]
    for name, each in wanted.items():
        assert {row(job).worker_id for job in each} <= workers[name]
    assert set(ledger.times_run().values()) == {1}
