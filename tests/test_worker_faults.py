"""A whole worker in this process, and what goes wrong in and around its jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connection, transaction

from django_jobs import signals
from django_jobs.models import Attempt, Job
from django_jobs.models import Worker as WorkerRow
from django_jobs.outcomes import ClaimedJob
from django_jobs.states import JobState, WorkerState
from django_jobs.worker import Worker
from django_jobs.worker.link import Link
from django_jobs.worker.options import resolve_options
from django_jobs.worker.preflight import NotReady

from . import tasks
from .conftest import wait_until
from .executors import Gate
from .rows import state_of
from .worker_tasks import do, do_async, do_once, doing, raising, returning

pytestmark = pytest.mark.django_db(transaction=True)
on_postgresql = pytest.mark.skipif(not connection.features.has_select_for_update, reason="PostgreSQL only")

QUICK = {"concurrency": 2, "poll_interval": 0.05, "heartbeat_interval": 5, "shutdown_timeout": 30}
Start = Callable[..., Worker]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Worker(**QUICK | options))


def wait_for(job: Any, state: JobState) -> None:
    wait_until(lambda: state_of(job) == state, message=f"job {job.id} to be {state}")


def raise_in_middleware(call: Any) -> Any:
    """A middleware that fails around some jobs."""

    def run(job: ClaimedJob) -> Any:
        if job.task_path.endswith("do_once"):
            raise RuntimeError("the middleware failed")
        return call(job)

    return run


# Jobs, receivers and middleware that raise


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_a_worker_lives_on_after_whatever_a_job_raises(start: Start, error: type[BaseException]) -> None:
    start(concurrency=1)
    failing, following = do_once.enqueue(raising(error)), do.enqueue(returning("done"))

    wait_for(following, JobState.SUCCEEDED)

    assert state_of(failing) == JobState.FAILED
    assert Attempt.objects.get(job=failing.id).exception_class == f"builtins.{error.__name__}"


def test_a_receiver_that_raises_harms_neither_its_job_nor_the_worker(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def receive(**told: Any) -> None:
        raise RuntimeError("the receiver failed")

    names = ("job_started", "job_succeeded", "job_failed", "worker_heartbeat", "worker_started", "leader_gained")
    for name in names:
        getattr(signals, name).connect(receive)
    try:
        worker = start(concurrency=1)
        jobs = [do_once.enqueue(raising(ValueError("no"))), do.enqueue(returning("done"))]
        wait_for(jobs[0], JobState.FAILED)
        wait_for(jobs[1], JobState.SUCCEEDED)
        wait_until(lambda: caplog.text.count("the receiver failed") >= len(names))
    finally:
        for name in names:
            getattr(signals, name).disconnect(receive)

    assert all(loop["alive"] for loop in worker.health().values())


def test_a_middleware_that_raises_fails_its_job_and_the_worker_lives(
    start: Start, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DJANGO_JOBS = {"MIDDLEWARE": ["tests.test_worker_faults.raise_in_middleware"]}
    start(concurrency=1)
    failing, following = do_once.enqueue(returning(1)), do.enqueue(returning(2))

    wait_for(following, JobState.SUCCEEDED)

    assert state_of(failing) == JobState.FAILED
    wait_until(lambda: "failed: builtins.RuntimeError: the middleware failed" in caplog.text)


# Pausing and stopping


def test_a_pause_is_soon_in_the_row(start: Start) -> None:
    worker = start(heartbeat_interval=60, heartbeat_timeout=120)
    wait_until(lambda: WorkerRow.objects.get().state == WorkerState.RUNNING)

    worker.pause()

    wait_until(lambda: WorkerRow.objects.get().state == WorkerState.PAUSED)


def test_a_worker_whose_row_says_that_it_stops_claims_nothing_however_long_its_receivers_take(start: Start) -> None:
    late: list[Any] = []

    def receive(**told: Any) -> None:
        wait_until(lambda: WorkerRow.objects.get().state == WorkerState.STOPPING)
        late.append(tasks.noop.enqueue())
        # Two reports from now on: a pass that could have claimed it lies between them.
        for _ in range(2):
            before = WorkerRow.objects.get().loops
            wait_until(lambda before=before: WorkerRow.objects.get().loops != before)

    worker = start(heartbeat_interval=0.1)
    signals.worker_stopping.connect(receive)
    try:
        worker.stop()
    finally:
        signals.worker_stopping.disconnect(receive)

    assert [state_of(job) for job in late] == [JobState.READY]


def test_a_worker_that_stops_cannot_be_made_to_claim_again(start: Start) -> None:
    worker, gate = start(), Gate()
    do.enqueue(doing(gate))
    gate.wait()
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    wait_until(lambda: worker.stats()["state"] == "stopping")
    late = tasks.noop.enqueue()

    worker.resume()
    worker.pause()

    gate.open()
    stopping.join(30)
    assert state_of(late) == JobState.READY
    assert WorkerRow.objects.get().state == WorkerState.STOPPED


def test_a_stopped_worker_leaves_no_thread_and_no_connection_behind() -> None:
    threads, before = set(threading.enumerate()), sessions()
    with Worker(**QUICK) as worker:
        jobs = [do.enqueue(doing(lambda: Job.objects.count())) for _ in range(4)]
        for job in jobs:
            wait_for(job, JobState.SUCCEEDED)

    left = {thread for thread in threading.enumerate() if thread.name.startswith("django_jobs")} - threads
    assert left == set()
    assert worker.exit_code == 0
    # The server takes note of the end of a session a moment after it.
    wait_until(lambda: sessions() <= before)


def sessions() -> set[int]:
    """Return who else is connected to the database. Not its own helpers, such as an autovacuum: they come when they like."""
    if not connection.features.has_select_for_update:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return {pid for (pid,) in cursor.fetchall()}


@on_postgresql
def test_a_worker_process_has_no_more_connections_than_its_concurrency_and_four() -> None:
    before = sessions()
    options = resolve_options({"CONCURRENCY": 3, "POLL_INTERVAL": 0.05})
    gates = [Gate() for _ in range(3)]
    signals.job_succeeded.connect(use_the_database)
    try:
        with Worker.supervised(options, "w1", "s1", Link()):
            jobs = [do.enqueue(doing(use_the_database_until(gate))) for gate in gates]
            coroutine = do_async.enqueue(doing(Job.objects.acount))
            for gate in gates:
                gate.wait()
            wait_for(coroutine, JobState.SUCCEEDED)

            # Those that were there before may be about to end.
            most = len(sessions() - before)

            for gate in gates:
                gate.open()
            for job in jobs:
                wait_for(job, JobState.SUCCEEDED)
    finally:
        signals.job_succeeded.disconnect(use_the_database)
    assert 3 < most <= 3 + 4


def use_the_database(**told: Any) -> None:
    Job.objects.count()


def use_the_database_until(gate: Gate) -> Callable[[], None]:
    def body() -> None:
        Job.objects.count()
        gate()

    return body


# Starting


def test_a_worker_does_not_start_inside_a_transaction() -> None:
    worker = Worker(**QUICK)

    with transaction.atomic(), pytest.raises(NotReady, match="inside a transaction"):
        worker.start()


# The database


@on_postgresql
def test_outcomes_outlive_a_break_of_every_connection(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    start()
    gates = [Gate(), Gate()]
    jobs = [do.enqueue(doing(gate)) for gate in gates]
    for gate in gates:
        gate.wait()

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
    for gate in gates:
        gate.open()

    for job in jobs:
        wait_for(job, JobState.SUCCEEDED)
    following = tasks.noop.enqueue()
    wait_for(following, JobState.SUCCEEDED)
    assert not Attempt.objects.exists()


# A part that dies


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("part", ["_announcer", "_deadlines"])
def test_a_worker_of_which_a_part_dies_ends_and_says_so(
    start: Start, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    worker, gate = start(concurrency=1), Gate()
    begun, waiting = do.enqueue(doing(gate)), tasks.noop.enqueue()
    gate.wait()

    # As a part dies whose own code ends its thread.
    loop: Any = getattr(worker, part)
    loop.run_once = _die
    loop.wake()
    assert worker.wait(30)
    code = worker.stop()

    states, attempts = [state_of(job) for job in (begun, waiting)], list(Attempt.objects.all())
    gate.open()
    assert code == 3
    assert "A loop of worker" in caplog.text
    assert states == [JobState.RUNNING, JobState.READY]
    assert attempts == []


def _die() -> float:
    raise KeyboardInterrupt
