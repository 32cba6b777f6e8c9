"""A worker in a process of one's own: ``Worker`` from code, with its real threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from django_jobs import signals
from django_jobs.exceptions import InvalidOption, JobsError, UnknownQueue
from django_jobs.models import Attempt, Job, Lease, Queue
from django_jobs.models import Worker as WorkerRow
from django_jobs.models.database import from_now
from django_jobs.models.rescue import rescue_lost
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from django_jobs.worker import Worker
from django_jobs.worker.preflight import NotReady

from . import tasks
from .conftest import wait_until
from .executors import Gate
from .rows import HOUR, row, start_worker, state_of
from .worker_tasks import do, do_async, doing, raising, returning

pytestmark = pytest.mark.django_db(transaction=True)

# Short, so that the rows of the workers tell soon what the workers do.
QUICK = {"poll_interval": 0.05, "heartbeat_interval": 0.1, "heartbeat_timeout": 20, "shutdown_timeout": 30}
LOOPS = {"exchange", "announcer", "deadlines", "heartbeat", "leader", "threads", "event loop"}

Start = Callable[..., Worker]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a worker, which is stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Worker(**QUICK | options))


def row_of(worker: Worker) -> WorkerRow:
    return WorkerRow.objects.get(worker_id=worker.worker_id)


def wait_for(job: Any, state: JobState) -> None:
    wait_until(lambda: state_of(job) == state, message=f"job {job.id} to be {state}")


def wait_for_reports(worker: Worker) -> None:
    """Wait until the worker has looked at its jobs at least once since now: before it writes its row, it has."""
    for _ in range(2):
        before = row_of(worker).loops
        wait_until(lambda before=before: row_of(worker).loops != before)


def hold(gate: Gate) -> Any:
    """Enqueue a job that waits at the gate."""
    return do.enqueue(doing(gate))


# Start


def test_a_worker_runs_jobs_of_both_kinds_from_its_start_on(start: Start) -> None:
    async def body() -> int:
        return await Group.objects.acount()

    before, asynchronous = tasks.add.enqueue(1, b=2), do_async.enqueue(doing(body))

    start()

    after = tasks.add.enqueue(3, b=4)
    results = [result.wait(timeout=30).return_value for result in (before, asynchronous, after)]
    assert results == [3, 0, 7]


def test_the_row_says_who_the_worker_is_and_what_it_does(start: Start) -> None:
    worker = start(worker_id="mine", queues=["mail", "default"], concurrency=3, tags=["gpu"])

    wait_until(lambda: row_of(worker).state == WorkerState.RUNNING)
    row = row_of(worker)
    assert (row.worker_id, row.kind, row.queues, row.concurrency) == ("mine", "worker", ["mail", "default"], 3)
    assert {"*", "gpu", "worker_id=mine"} <= set(row.tags)
    assert WorkerRow.objects.leased().get() == row


def test_options_of_the_environment_count_in_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_JOBS_CONCURRENCY", "7")
    monkeypatch.setenv("DJANGO_JOBS_ASYNC_CONCURRENCY", "7")

    worker = Worker(concurrency=2)

    assert (worker.options.concurrency, worker.options.async_concurrency) == (2, 7)


@pytest.mark.parametrize("queues", ["mail", ["mail"], ("mail",)])
def test_a_worker_takes_jobs_of_its_queues_only(start: Start, queues: Any) -> None:
    other, mail = tasks.noop.enqueue(), tasks.send_mail.enqueue("a@example.com")

    worker = start(queues=queues)

    wait_for(mail, JobState.SUCCEEDED)
    wait_for_reports(worker)
    assert state_of(other) == JobState.READY


def test_a_misspelled_option_comes_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidOption, match=r"^A worker has no option 'concurency'\. Did you mean 'concurrency'\?$"):
        Worker(concurency=4)


def test_an_option_that_cannot_work_is_refused_at_once() -> None:
    with pytest.raises(InvalidOption, match="--concurrency must be at least 1"):
        Worker(concurrency=0)
    with pytest.raises(InvalidOption, match="HEARTBEAT_TIMEOUT"):
        Worker(heartbeat_interval=5, heartbeat_timeout=5)


def test_an_unknown_queue_is_refused_at_the_start() -> None:
    with pytest.raises(UnknownQueue, match="Did you mean 'mail'"):
        Worker(queues=["mial"]).start()

    assert not WorkerRow.objects.exists()


def test_a_database_without_our_migrations_is_refused_at_the_start() -> None:
    applied = MigrationRecorder(connection).migration_qs.filter(app="django_jobs")
    rows = list(applied)
    applied.delete()
    try:
        with pytest.raises(NotReady, match=r"lacks migrations of django_jobs: 0001_initial.*Run: manage\.py migrate"):
            Worker().start()
    finally:
        for migration in rows:
            migration.save(force_insert=True)

    assert not WorkerRow.objects.exists()


def test_a_worker_id_in_use_is_refused_at_the_start() -> None:
    start_worker("mine", hostname="elsewhere", pid=7)

    with pytest.raises(InvalidOption, match="The worker id 'mine' is in use by process 7 on elsewhere"):
        Worker(worker_id="mine").start()

    assert WorkerRow.objects.get().hostname == "elsewhere"


def test_a_worker_that_could_not_start_stops_without_a_trace() -> None:
    worker = Worker(queues=["mial"])
    with pytest.raises(UnknownQueue):
        worker.start()

    assert worker.stop() == 0
    assert not WorkerRow.objects.exists()


def test_a_worker_is_started_once(start: Start) -> None:
    worker = start()

    with pytest.raises(JobsError, match="has been started before"):
        worker.start()
    worker.stop()
    with pytest.raises(JobsError, match="has been started before"):
        worker.start()


# Stop


def test_a_worker_that_stops_says_so_in_its_row(start: Start) -> None:
    worker = start()

    code = worker.stop()

    assert code == 0
    assert row_of(worker).state == WorkerState.STOPPED
    assert worker.stats()["state"] == "stopped"
    assert not WorkerRow.objects.leased().exists()
    assert {loop["alive"] for name, loop in worker.health().items() if name not in ("threads", "event loop")} == {False}


def test_a_running_job_finishes_before_the_worker_ends(start: Start) -> None:
    gate = Gate()
    worker, job, next_job = start(concurrency=1), hold(gate), tasks.noop.enqueue()
    gate.wait()

    with ThreadPoolExecutor(1) as other:
        stopping = other.submit(worker.stop)
        wait_until(lambda: row_of(worker).state == WorkerState.STOPPING)
        gate.open()
        code = stopping.result(timeout=30)

    assert code == 0
    assert (state_of(job), state_of(next_job)) == (JobState.SUCCEEDED, JobState.READY)


def test_a_job_that_takes_too_long_is_given_back_unharmed(start: Start) -> None:
    gate = Gate()
    worker, job = start(), hold(gate)
    gate.wait()

    code = worker.stop(timeout=0)

    assert code == 1
    stored = row(job.id)
    assert (stored.state, stored.worker_id, stored.max_attempts - stored.attempt) == (JobState.READY, "", 3)
    assert Attempt.objects.get().outcome == AttemptOutcome.INTERRUPTED
    assert row_of(worker).state == WorkerState.STOPPED


def test_a_worker_in_a_hurry_does_not_wait_for_its_jobs(start: Start) -> None:
    gate = Gate()
    worker, job = start(), hold(gate)
    gate.wait()

    worker.hurry()

    assert worker.stop() == 1
    assert state_of(job) == JobState.READY


def test_a_second_stop_answers_as_the_first(start: Start) -> None:
    gate = Gate()
    worker = start()
    hold(gate)
    gate.wait()

    codes = [worker.stop(timeout=0), worker.stop(), worker.stop(timeout=0)]

    assert codes == [1, 1, 1]


def test_a_worker_that_never_started_can_be_stopped() -> None:
    worker = Worker()

    assert worker.stop() == 0
    assert worker.is_stopping
    assert not WorkerRow.objects.exists()


def test_run_works_until_somebody_asks_it_to_stop() -> None:
    worker, job = Worker(**QUICK), tasks.noop.enqueue()
    with ThreadPoolExecutor(1) as other:
        running = other.submit(worker.run)
        wait_for(job, JobState.SUCCEEDED)
        waited_in_vain = not worker.wait(timeout=0)
        worker.request_stop()

        assert running.result(timeout=30) == 0
    assert waited_in_vain
    assert row_of(worker).state == WorkerState.STOPPED


def test_a_burst_runs_all_that_is_ready_and_ends() -> None:
    ready = [tasks.noop.enqueue(), tasks.noop.using(queue_name="undeclared").enqueue(), tasks.add_async.enqueue(1, 2)]
    later = tasks.noop.using(run_after=HOUR).enqueue()

    code = Worker(burst=True, **QUICK).run()

    assert code == 0
    assert {state_of(job) for job in ready} == {JobState.SUCCEEDED}
    assert state_of(later) == JobState.SCHEDULED


def test_once_runs_one_job_and_ends() -> None:
    first, second = tasks.noop.enqueue(), tasks.noop.enqueue()

    code = Worker(once=True, **QUICK).run()

    assert code == 0
    assert (state_of(first), state_of(second)) == (JobState.SUCCEEDED, JobState.READY)


def test_an_error_in_the_with_block_stops_the_worker() -> None:
    with pytest.raises(ValueError, match="of the block"), Worker(**QUICK) as worker:
        raise ValueError("of the block")

    assert row_of(worker).state == WorkerState.STOPPED


def test_coroutines_of_a_queue_run_in_threads_where_it_says_so(start: Start) -> None:
    Queue.objects.declare("default", executor="thread")
    loops: list[asyncio.AbstractEventLoop] = []

    async def tell() -> None:
        loops.append(asyncio.get_running_loop())

    job, elsewhere = (do_async.using(queue_name=name).enqueue(doing(tell)) for name in ("default", "calm"))

    start(concurrency=1)

    wait_for(job, JobState.SUCCEEDED)
    wait_for(elsewhere, JobState.SUCCEEDED)
    assert len(set(loops)) == 2


# Pause and resume


def test_a_paused_worker_claims_nothing_and_its_running_jobs_go_on(start: Start) -> None:
    gate = Gate()
    worker, running = start(concurrency=2), hold(gate)
    gate.wait()

    worker.pause()
    waiting = tasks.noop.enqueue()
    wait_until(lambda: row_of(worker).state == WorkerState.PAUSED)
    wait_for_reports(worker)
    gate.open()
    wait_for(running, JobState.SUCCEEDED)
    wait_for_reports(worker)

    assert state_of(waiting) == JobState.READY
    assert worker.stats()["state"] == "paused"


def test_a_resumed_worker_claims_again(start: Start) -> None:
    worker = start()
    worker.pause()
    job = tasks.noop.enqueue()
    wait_for_reports(worker)

    worker.resume()

    wait_for(job, JobState.SUCCEEDED)
    wait_until(lambda: row_of(worker).state == WorkerState.RUNNING)


def test_a_paused_worker_stops_as_any_other(start: Start) -> None:
    worker = start()
    worker.pause()

    assert worker.stop() == 0
    assert row_of(worker).state == WorkerState.STOPPED


def test_a_worker_that_does_not_run_is_neither_paused_nor_resumed() -> None:
    worker, job = Worker(**QUICK), tasks.noop.enqueue()

    worker.pause()
    worker.resume()
    with worker:
        wait_for(job, JobState.SUCCEEDED)
    worker.pause()
    worker.resume()

    assert worker.stats()["state"] == "stopped"


# Stats and health


def test_stats_count_attempts(start: Start) -> None:
    gate = Gate()
    worker = start(concurrency=2)
    ended = [tasks.noop.enqueue(), do.using(max_attempts=1).enqueue(raising(ValueError("bad")))]
    wait_for(ended[0], JobState.SUCCEEDED)
    wait_for(ended[1], JobState.FAILED)
    hold(gate)
    gate.wait()
    # They are counted one after the other.
    wait_until(lambda: (worker.stats()["processed"], worker.stats()["failed"]) == (2, 1))

    stats = worker.stats()
    gate.open()

    assert stats == {
        "worker_id": worker.worker_id,
        "state": "running",
        "processed": 2,
        "failed": 1,
        "active": 1,
        "concurrency": 2,
    }
    wait_until(lambda: (row_of(worker).processed, row_of(worker).failed, row_of(worker).active) == (3, 1, 0))


def test_an_attempt_that_timed_out_counts_as_failed(start: Start) -> None:
    Queue.objects.declare("default", timeout=0.05)
    worker, job = start(), do.using(max_attempts=1).enqueue(doing(Gate()))
    spared = do.using(timeout=600).enqueue(returning(1))

    wait_for(job, JobState.FAILED)

    wait_for(spared, JobState.SUCCEEDED)
    assert Attempt.objects.get().outcome == AttemptOutcome.TIMED_OUT
    wait_until(lambda: worker.stats()["processed"] == 2)
    assert worker.stats()["failed"] == 1


def test_health_tells_of_every_loop(start: Start) -> None:
    worker = start()

    health = worker.health()

    assert health.keys() == LOOPS
    assert all(loop["alive"] for loop in health.values())
    assert {health[name]["last_error"] for name in LOOPS - {"threads", "event loop"}} == {""}
    assert health["exchange"]["seconds_since_pass"] < 30


def test_the_row_carries_the_health_of_the_loops(start: Start) -> None:
    worker = start()

    wait_until(lambda: row_of(worker).loops.keys() == LOOPS)


def test_the_duties_of_plugins_are_a_loop_of_their_own(start: Start, settings: Any) -> None:
    settings.DJANGO_JOBS = {"DUTIES": [("nothing", 60, "tests.middleware.takes_nothing")]}

    worker = start()

    assert worker.health().keys() == LOOPS | {"plugin duties"}


# A worker alone is its own supervisor


def test_a_worker_alone_leads_and_resigns_at_its_end(start: Start) -> None:
    worker = start()
    wait_until(lambda: row_of(worker).is_leader)

    worker.stop()

    assert not row_of(worker).is_leader
    assert Lease.objects.hold("leader", "another", HOUR)


def test_a_worker_alone_renews_its_lease(start: Start) -> None:
    worker = start()
    before = row_of(worker).expires_at

    wait_until(lambda: row_of(worker).expires_at > before)


def test_a_worker_alone_stages_scheduled_jobs_and_declares_queues(start: Start) -> None:
    start()

    scheduled = do.using(run_after=HOUR / 36000).enqueue(doing(lambda: None))
    undeclared = tasks.noop.using(queue_name="nobody knows").enqueue()

    wait_for(scheduled, JobState.SUCCEEDED)
    wait_for(undeclared, JobState.SUCCEEDED)
    assert Queue.objects.filter(name="nobody knows").exists()


def test_a_worker_alone_raises_the_priority_of_jobs_that_wait(start: Start) -> None:
    Queue.objects.declare("patient", raise_after=60, raise_by=10)
    waiting = tasks.noop.using(queue_name="patient").enqueue()
    Job.objects.filter(pk=waiting.id).update(enqueued_at=from_now(-HOUR))

    start(queues=["default"])

    wait_until(lambda: row(waiting.id).priority >= 20, timeout=30)


def test_a_worker_that_has_lost_its_lease_ends_and_leaves_its_jobs_to_others(start: Start) -> None:
    gate = Gate()
    worker, job = start(), hold(gate)
    gate.wait()

    rescue_lost([worker.worker_id])

    assert worker.wait(timeout=30)
    code = worker.stop()
    gate.open()
    assert code == 4
    assert (state_of(job), row_of(worker).state) == (JobState.READY, WorkerState.LOST)
    assert Job.objects.get().attempt == 1


# Signals


def test_receivers_are_told_of_the_life_of_a_worker() -> None:
    told: list[tuple[str, str]] = []

    def hear(signal: Any, worker_id: str, **arguments: Any) -> None:
        told.append((names[signal], worker_id))

    names = {getattr(signals, f"worker_{name}"): name for name in ("started", "stopping", "stopped")}
    for signal in names:
        signal.connect(hear)
    try:
        with Worker(**QUICK) as worker:
            pass
    finally:
        for signal in names:
            signal.disconnect(hear)

    assert told == [(name, worker.worker_id) for name in ("started", "stopping", "stopped")]
