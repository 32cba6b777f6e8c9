"""What happens to the workers and the server while the soak runs. Each fault is one function, and all are drawn by chance."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import psycopg
from django.db import connection
from django.utils import timezone

from django_jobs.models import Job, Queue, Schedule

from .fleet import Fleet
from .load import Promised
from .tasks import TICKS


@dataclass(frozen=True)
class Scene:
    """What faults happen to."""

    fleet: Fleet
    promised: Promised


Fault = Callable[["Scene", random.Random], None]


def kill_a_worker(scene: Scene, chance: random.Random) -> None:
    _signal(chance, scene.fleet.workers(), signal.SIGKILL)


def kill_a_supervisor(scene: Scene, chance: random.Random) -> None:
    _signal(chance, scene.fleet.supervisors(), signal.SIGKILL)


def kill_a_whole_command(scene: Scene, chance: random.Random) -> None:
    if supervisors := scene.fleet.supervisors():
        supervisor = chance.choice(supervisors)
        with suppress(psutil.Error):
            for process in [*supervisor.children(), supervisor]:
                process.kill()


def freeze_a_worker(scene: Scene, chance: random.Random) -> None:
    """Only the worker: its supervisor keeps its lease alive, and its jobs wait."""
    workers = scene.fleet.workers()
    _freeze(chance, workers and [chance.choice(workers)], chance.uniform(0.5, 5))


def freeze_a_host(scene: Scene, chance: random.Random) -> None:
    """A command with its workers, for longer than its leases: others take its jobs, then it wakes up."""
    if supervisors := scene.fleet.supervisors():
        supervisor = chance.choice(supervisors)
        with suppress(psutil.Error):
            _freeze(chance, [supervisor, *supervisor.children()], chance.uniform(4, 8))


def stop_a_command(scene: Scene, chance: random.Random) -> None:
    """As a deploy does; the next is started by itself."""
    _signal(chance, scene.fleet.supervisors(), signal.SIGTERM)


def stop_a_command_twice(scene: Scene, chance: random.Random) -> None:
    if supervisors := scene.fleet.supervisors():
        supervisor = chance.choice(supervisors)
        with suppress(psutil.Error):
            supervisor.send_signal(signal.SIGINT)
            time.sleep(chance.uniform(0, 0.5))
            supervisor.send_signal(signal.SIGINT)


def stop_a_worker(scene: Scene, chance: random.Random) -> None:
    _signal(chance, scene.fleet.workers(), signal.SIGTERM)


def cut_a_session(scene: Scene, chance: random.Random) -> None:
    pids = _sessions()
    if pids:
        _ask("SELECT pg_terminate_backend(%s)", chance.choice(pids))


def cut_all_sessions(scene: Scene, chance: random.Random) -> None:
    for pid in _sessions():
        _ask("SELECT pg_terminate_backend(%s)", pid)


def cancel_all_statements(scene: Scene, chance: random.Random) -> None:
    """As a statement_timeout does."""
    for pid in _sessions():
        _ask("SELECT pg_cancel_backend(%s)", pid)


def crash_the_server(scene: Scene, chance: random.Random) -> None:
    """Kill one session's process: the server ends all others and recovers, as after a restart in immediate mode."""
    pids = _sessions()
    if pids:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)


def freeze_the_server(scene: Scene, chance: random.Random) -> None:
    """No answer and no error, as from a network that is gone."""
    postmaster = psutil.Process(_ask("SELECT pg_backend_pid()")).parent()
    assert postmaster is not None
    _freeze(chance, [postmaster, *postmaster.children()], chance.uniform(0.5, 4))


def lock_the_jobs(scene: Scene, chance: random.Random) -> None:
    """Somebody's migration takes a lock on the table for a while."""
    with _transaction() as other:
        other.execute("LOCK TABLE django_jobs_job IN ACCESS EXCLUSIVE MODE")
        time.sleep(chance.uniform(0.2, 2))


def lock_some_rows(scene: Scene, chance: random.Random) -> None:
    with _transaction() as other:
        other.execute("SELECT 1 FROM django_jobs_job WHERE state IN ('ready', 'running') LIMIT 20 FOR UPDATE")
        other.execute("SELECT 1 FROM django_jobs_worker LIMIT 2 FOR UPDATE")
        time.sleep(chance.uniform(0.2, 3))


def hold_a_transaction(scene: Scene, chance: random.Random) -> None:
    """Somebody's report keeps vacuum from removing what is dead."""
    with _transaction() as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM django_jobs_job")
        time.sleep(chance.uniform(2, 10))


def pause_the_queue(scene: Scene, chance: random.Random) -> None:
    Queue.objects.pause("default", "the soak pauses it", timezone.now() + timedelta(seconds=chance.uniform(0.5, 3)))


def cancel_some_jobs(scene: Scene, chance: random.Random) -> None:
    ids = list(Job.objects.unfinished().order_by("?").values_list("pk", flat=True)[:5])
    scene.promised.cancelled.update(ids)
    Job.objects.filter(pk__in=ids).cancel()


def edit_the_schedule(scene: Scene, chance: random.Random) -> None:
    """As an operator does, whatever becomes of it at that moment."""
    Schedule.objects.declare(TICKS, upsert=True, priority=chance.randint(-5, 5))


def forget_the_leader(scene: Scene, chance: random.Random) -> None:
    """Two lead for a moment: the lease is given away while its holder still counts on it."""
    _ask("UPDATE django_jobs_lease SET expires_at = now() - interval '1 second' RETURNING 1")


FAULTS: dict[Fault, int] = {
    kill_a_worker: 10,
    kill_a_supervisor: 4,
    kill_a_whole_command: 4,
    freeze_a_worker: 4,
    freeze_a_host: 4,
    stop_a_command: 6,
    stop_a_command_twice: 2,
    stop_a_worker: 3,
    cut_a_session: 10,
    cut_all_sessions: 3,
    cancel_all_statements: 6,
    crash_the_server: 2,
    freeze_the_server: 3,
    lock_the_jobs: 3,
    lock_some_rows: 4,
    hold_a_transaction: 3,
    pause_the_queue: 3,
    cancel_some_jobs: 3,
    edit_the_schedule: 3,
    forget_the_leader: 2,
}


def name_of(fault: Fault) -> str:
    return getattr(fault, "__name__", "fault").replace("_", " ")


def draw(chance: random.Random) -> Fault:
    return chance.choices(list(FAULTS), list(FAULTS.values()))[0]


def _signal(chance: random.Random, processes: list[psutil.Process], number: int) -> None:
    if processes:
        with suppress(psutil.Error):
            chance.choice(processes).send_signal(number)


def _freeze(chance: random.Random, processes: list[psutil.Process], seconds: float) -> None:
    try:
        for process in processes:
            with suppress(psutil.Error):
                process.suspend()
        time.sleep(seconds)
    finally:
        for process in processes:
            with suppress(psutil.Error):
                process.resume()


def _sessions() -> list[int]:
    """Return the sessions of workers and supervisors, not those of the soak itself."""
    rows = _rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        " AND application_name <> 'soak'"
    )
    return [pid for (pid,) in rows]


def _ask(statement: str, *values: Any) -> Any:
    rows = _rows(statement, *values)
    return rows[0][0] if rows else None


def _rows(statement: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


@contextmanager
def _transaction() -> Iterator[psycopg.Connection[Any]]:
    """Open a transaction over a connection of its own, and roll it back."""
    parameters = connection.get_connection_params()
    with psycopg.connect(
        host=parameters["host"], port=parameters["port"], dbname=parameters["dbname"], user=parameters["user"],
        password=parameters.get("password"), application_name="soak",
    ) as other:  # fmt: skip
        yield other
        other.rollback()
