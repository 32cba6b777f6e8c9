"""The database as workers meet it in life: few connections, sessions that are cut, a server that is away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil
import pytest
from django.conf import settings
from django.db import connection

from django_jobs.models import Attempt, Job, Worker
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.processes import wait_until

from .conftest import Start
from .ledger import Ledger
from .observe import PATIENCE, outcomes_of, states_of, wait_for_state, wait_until_finished, worker_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        settings.DATABASE_URL.startswith("sqlite"),
        reason="a database in a file has no server, no sessions and no connections",
    ),
]

OTHERS = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"


def cut_all_sessions() -> int:
    """End every session on the test database but this one, as an administrator or a failover does."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}")
        return len(cursor.fetchall())


@contextmanager
def database_away() -> Iterator[None]:
    """Let nobody connect to the test database, and cut those who are; this session lives on."""
    name = connection.ops.quote_name(str(connection.settings_dict["NAME"]))
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        cut_all_sessions()
        yield
    finally:
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def connections_of(pid: int) -> int:
    """Return how many connections to the database server a process has."""
    port = urlsplit(settings.DATABASE_URL).port or 5432
    sockets = psutil.Process(pid).net_connections("inet")
    return sum(bool(each.raddr) and each.raddr.port == port and each.status == "ESTABLISHED" for each in sockets)


def test_a_worker_has_no_more_connections_than_its_threads_and_four(
    start: Start, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    concurrency = 4
    command = start(f"--concurrency={concurrency}")
    busy = [*jobs.query.enqueue_many([((), {})] * 4), *jobs.query_async.enqueue_many([((), {})] * 20)]
    worker = worker_of(command)
    most = 0

    def sample() -> None:
        nonlocal most
        most = max(most, connections_of(worker.pid))

    wait_until(lambda: (sample(), ledger.count("begin") == 24)[1], message="all jobs to run")
    until = Worker.objects.get(pk=worker.pk).last_seen
    wait_until(lambda: (sample(), Worker.objects.filter(pk=worker.pk, last_seen__gt=until).exists())[1])
    ledger.open_gate()
    wait_until(lambda: (sample(), not Job.objects.unfinished().exists())[1], timeout=PATIENCE)
    failing = jobs.fail.enqueue()
    wait_until(lambda: (sample(), failing.refresh(), failing.is_finished)[2], timeout=PATIENCE)
    command.terminate()
    while command.returncode is None:
        try:
            sample()
        except psutil.NoSuchProcess:
            break

    assert command.wait() == 0
    assert states_of(busy) == {JobState.SUCCEEDED}
    record_property("most_connections", f"{most} at concurrency {concurrency}")
    assert concurrency <= most <= concurrency + 4


def test_a_job_is_out_of_time_also_while_the_database_is_away(start: Start, ledger: Ledger) -> None:
    start("--heartbeat-timeout=60")
    job = jobs.hold_stubbornly.using(timeout=3, max_attempts=1).enqueue()
    wait_until(lambda: ledger.count("begin") == 1)

    with database_away():
        wait_until(lambda: ledger.count("asked") == 1, timeout=PATIENCE, message="the end of its time to reach the job")

    ledger.open_gate()
    wait_for_state(job, JobState.FAILED)
    assert outcomes_of(job) == [AttemptOutcome.TIMED_OUT]


def test_a_worker_whose_sessions_are_cut_goes_on_and_each_job_ends_once(start: Start, ledger: Ledger) -> None:
    command = start("--concurrency=4", "--processes=2", workers=2)
    workers = set(Worker.objects.filter(kind="worker").values_list("worker_id", flat=True))
    held = jobs.hold.enqueue_many([((), {})] * 4)
    wait_until(lambda: ledger.count("begin") == 4)

    assert cut_all_sessions() > 0

    ledger.open_gate()
    wait_until_finished(held)
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    assert states_of(held) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert set(Worker.objects.live().filter(kind="worker").values_list("worker_id", flat=True)) == workers
    assert command.returncode is None


def test_sessions_that_are_cut_again_and_again_lose_and_double_no_job(start: Start, ledger: Ledger) -> None:
    start("--concurrency=4")
    many = jobs.pause_briefly.enqueue_many([((0.01,), {})] * 400)

    for count in (20, 100, 200, 300):
        wait_until(lambda count=count: ledger.count("end") > count, timeout=PATIENCE)
        cut_all_sessions()

    wait_until_finished(many)
    assert states_of(many) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert len(ledger.times_run()) == 400


def test_jobs_whose_own_queries_are_cut_are_tried_again_on_fresh_connections(start: Start, ledger: Ledger) -> None:
    command = start("--concurrency=2")
    worker = worker_of(command)
    asking = jobs.query.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)

    cut_all_sessions()

    wait_until(lambda: Attempt.objects.count() == 2, message="two failed attempts")
    ledger.open_gate()
    wait_until_finished(asking)
    assert states_of(asking) == {JobState.SUCCEEDED}
    assert worker_of(command) == worker


def test_an_outage_longer_than_the_leases_costs_no_running_job(start: Start, ledger: Ledger) -> None:
    command = start()
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)

    with database_away():
        wait_until(lambda: not Worker.objects.leased().exists(), message="the end of all leases")
        ledger.open_gate("unused")

    renewed = Worker.objects.leased().filter(pk=worker.pk)
    wait_until(renewed.exists, message="the lease to be renewed")
    ledger.open_gate()
    wait_until_finished(held)
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    assert worker_of(command) == worker


def test_jobs_that_end_during_an_outage_are_written_after_it(start: Start, ledger: Ledger) -> None:
    start()
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)

    with database_away():
        ledger.open_gate()
        wait_until(lambda: ledger.count("end") == 2)

    wait_until_finished(held)
    assert states_of(held) == {JobState.SUCCEEDED}
    assert not Attempt.objects.exists()


@pytest.mark.parametrize("processes", [0, 1])
def test_a_worker_that_is_told_to_stop_during_an_outage_ends(start: Start, processes: int) -> None:
    command = start(f"--processes={processes}")

    with database_away():
        wait_until(lambda: "exchange loop failed and goes on" in command.output(), message="the worker to notice")
        command.terminate()
        # Nothing was running, so nothing is left undone.
        assert command.wait() == 0

    assert "its row does not say so" in command.output()


def test_a_worker_that_starts_anew_during_an_outage_is_there_after_it(start: Start, ledger: Ledger) -> None:
    command = start()
    killed = worker_of(command)

    with database_away():
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: "cannot start" in command.output(), timeout=PATIENCE, message="a start in vain")

    job = jobs.touch.enqueue()
    wait_for_state(job, JobState.SUCCEEDED)
    assert command.returncode is None
