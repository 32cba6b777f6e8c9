"""The server crashes, or is gone for long: running jobs go on, each attempt runs once, and workers need no restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from django_jobs.models import Attempt, Job, Worker
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import PATIENCE, states_of, wait_for_state, wait_until_finished, worker_of
from tests.processes import Command, wait_until

from .server import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(settings.DATABASE_URL.startswith("sqlite"), reason="a database in a file has no server"),
]

LOCK = 4711
# Holds up whoever brings a job into a state, inside the transaction, for as long as the test has the lock.
HELD_UP = f"""
CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NEW; END$$;
CREATE TRIGGER hold_up BEFORE UPDATE ON django_jobs_job
FOR EACH ROW WHEN (NEW.state = '{{state}}') EXECUTE FUNCTION hold_up()
"""
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory'"


@pytest.fixture
def start_there(start: Start, server: Server) -> Start:
    def start_there(*arguments: str) -> Command:
        return start(*arguments, env={"DATABASE_URL": server.url})

    return start_there


@contextmanager
def held_up_while(server: Server, state: str) -> Iterator[None]:
    """Let nobody bring a job into this state."""
    with psycopg.connect(server.url.replace("postgres:", "postgresql:", 1), autocommit=True) as session:
        session.execute(f"SELECT pg_advisory_lock({LOCK})")
        session.execute(HELD_UP.format(state=state))
        yield


@pytest.fixture(autouse=True)
def no_trigger(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("own_server").ask("DROP FUNCTION IF EXISTS hold_up() CASCADE")


def stop_at_once(server: Server) -> None:
    server.restart()


def kill_one_backend(server: Server) -> None:
    [(pid,), *_] = server.ask(WAITING) or server.ask(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'WITH done AS%' OR query LIKE '%django_jobs_queue%'"
    )
    server.kill_backend(pid)
    # It recovers by itself.
    wait_until(lambda: _recovered(server, pid), timeout=PATIENCE, message="the server to recover")


def _recovered(server: Server, pid: int) -> bool:
    try:
        return not server.ask(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}")
    except psycopg.OperationalError:
        return False


CRASHES = pytest.mark.parametrize(
    "crash",
    [
        pytest.param(stop_at_once, id="restart"),
        pytest.param(kill_one_backend, id="killed backend", marks=pytest.mark.long),
    ],
)
Crash = Callable[[Server], None]


@CRASHES
def test_jobs_that_are_claimed_while_the_server_crashes_run_once(
    start_there: Start, ledger: Ledger, server: Server, crash: Crash
) -> None:
    command = start_there()
    worker = worker_of(command)
    with held_up_while(server, "running"):
        asked = jobs.touch.enqueue_many([((), {})] * 2)
        wait_until(lambda: server.ask(WAITING), message="a claim to be held up")
        connection.close()

        crash(server)

    wait_until_finished(asked)
    assert states_of(asked) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert set(Attempt.objects.values_list("outcome", flat=True)) <= {AttemptOutcome.INTERRUPTED}
    assert worker_of(command) == worker


@CRASHES
def test_jobs_that_run_while_the_server_crashes_run_on_and_end_once(
    start_there: Start, ledger: Ledger, server: Server, crash: Crash
) -> None:
    command = start_there()
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)
    connection.close()

    crash(server)

    ledger.open_gate()
    wait_until_finished(held)
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    assert states_of(held) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert worker_of(command) == worker


@CRASHES
def test_jobs_that_are_completed_while_the_server_crashes_end_once(
    start_there: Start, ledger: Ledger, server: Server, crash: Crash
) -> None:
    command = start_there()
    worker = worker_of(command)
    with held_up_while(server, "succeeded"):
        asked = jobs.touch.enqueue_many([((), {})] * 2)
        wait_until(lambda: server.ask(WAITING), message="a completion to be held up")
        connection.close()

        crash(server)

    wait_until_finished(asked)
    assert states_of(asked) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
    assert worker_of(command) == worker


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.long)])
def test_a_server_that_is_gone_for_longer_than_every_lease_costs_nothing(
    start_there: Start, ledger: Ledger, server: Server, seconds: float
) -> None:
    command = start_there()
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)
    waiting = jobs.touch.enqueue_many([((), {})] * 3)
    connection.close()

    server.stop()
    # Four leases and forty polls, or a minute.
    with pytest.raises(pytest.fail.Exception):
        wait_until(lambda: command.returncode is not None, timeout=seconds)
    ledger.open_gate()
    wait_until(lambda: ledger.count("end") == 2)
    server.start()

    wait_until_finished([*held, *waiting], timeout=PATIENCE)
    assert states_of([*held, *waiting]) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert worker_of(command) == worker
    # One that is away is no reason to fill the disk with words.
    assert command.output().count("loop failed and goes on") < 20


KINDS = {
    "exchange": "query LIKE '%WITH done AS%' OR query LIKE '%enable_seqscan%'",
    "listener": "query = 'LISTEN django_jobs' OR query = ''",
    "heartbeat": """query LIKE 'UPDATE "django_jobs_worker" SET "last_seen"%'""",
    "leader": """query LIKE '%"django_jobs_lease"%'""",
    "job": "query LIKE '%auth_group%'",
}


# What ends the listener's and the leader's takes no other way than what ends the heartbeat's.
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind in ("listener", "leader"))) for kind in KINDS]
)
def test_any_one_of_our_sessions_may_be_ended_and_nothing_is_lost(start: Start, ledger: Ledger, kind: str) -> None:
    command = start("--concurrency=3")
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    asking = jobs.query.enqueue()
    wait_until(lambda: ledger.count("begin") == 3)

    ended = wait_until(lambda: _end_session(KINDS[kind]), timeout=PATIENCE, message=f"a session of the {kind}")

    assert ended == 1
    after = jobs.touch.enqueue()
    ledger.open_gate()
    wait_until_finished([*held, asking, after])
    assert states_of([*held, asking, after]) == {JobState.SUCCEEDED}
    own = {AttemptOutcome.FAILED} if kind == "job" else set()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == own
    seen = Worker.objects.get(pk=worker.pk).last_seen
    wait_until(lambda: Worker.objects.leased().filter(pk=worker.pk, last_seen__gt=seen).exists(), timeout=PATIENCE)
    leads = Worker.objects.leased().filter(is_leader=True)
    wait_until(leads.exists, timeout=PATIENCE, message="a leader")
    assert worker_of(command) == worker


def _end_session(which: str) -> int:
    """End one session of the workers; return how many there were (none while it is not seen)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            f" AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND ({which}) LIMIT 1) AS one"
        )
        return len(cursor.fetchall())
