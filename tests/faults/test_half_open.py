"""Connections that are dead while both ends believe in them: noticed in bounded time, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.conf import settings

from django_jobs.models import Attempt, Job, Worker
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import PATIENCE, states_of, wait_for_state, wait_until_finished, worker_of
from tests.processes import wait_until

from .proxy import ANSWERS, BOTH, REQUESTS, Line, Proxy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(settings.DATABASE_URL.startswith("sqlite"), reason="a database in a file has no connections"),
]

long = pytest.mark.long
DIRECTIONS = [pytest.param(REQUESTS, marks=long), ANSWERS, pytest.param(BOTH, id="both", marks=long)]


@pytest.fixture
def proxy(project_env: dict[str, str]) -> Iterator[Proxy]:
    with Proxy(project_env["DATABASE_URL"]) as proxy:
        yield proxy


@pytest.fixture
def start_behind(start: Start, proxy: Proxy) -> Start:
    """Start workers whose connections all go through the proxy. Their leases leave time to notice a dead one."""

    def start_behind(*arguments: str, **options: object) -> object:
        lease = ("--heartbeat-interval=0.5", "--heartbeat-timeout=6")
        return start(*lease, *arguments, env={"DATABASE_URL": proxy.url}, **options)

    return start_behind  # type: ignore[return-value]


def line_of(proxy: Proxy, kind: str, but: Line | None = None) -> Line:
    """Wait for an open line of this kind, another one than ``but``."""
    return wait_until(
        lambda: next((line for line in proxy.lines(kind) if line is not but), None),
        timeout=PATIENCE,
        message=f"a connection of the {kind}",
    )


def hold(line: Line, directions: str | tuple[str, ...]) -> None:
    line.hold(*([directions] if isinstance(directions, str) else directions))


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_a_dead_connection_of_the_exchange_is_replaced_and_each_job_ends_once(
    start_behind: Start, ledger: Ledger, proxy: Proxy, directions: str
) -> None:
    command = start_behind()
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)
    dead = line_of(proxy, "exchange")

    hold(dead, directions)
    ledger.open_gate()

    wait_until_finished(held)
    line_of(proxy, "exchange", but=dead)
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    assert states_of(held) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert worker_of(command) == worker
    assert "The exchange loop has been waiting for an answer of the database" in command.output()


def test_jobs_whose_claim_was_never_answered_are_given_back_unharmed(
    start_behind: Start, ledger: Ledger, proxy: Proxy
) -> None:
    command = start_behind()
    dead = line_of(proxy, "exchange")

    dead.hold(ANSWERS)
    asked = jobs.touch.enqueue_many([((), {})] * 4)

    wait_until_finished(asked)
    assert states_of(asked) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    # What was claimed without our knowing is in the history, and does not count.
    assert set(Attempt.objects.values_list("outcome", flat=True)) <= {AttemptOutcome.INTERRUPTED}
    assert all(job.max_attempts - job.attempt == 4 for job in Job.objects.all())
    assert worker_of(command).processed <= 4


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_a_dead_listener_is_replaced_and_polling_finds_the_jobs_meanwhile(
    start_behind: Start, ledger: Ledger, proxy: Proxy, directions: str
) -> None:
    command = start_behind()
    dead = line_of(proxy, "listener")

    hold(dead, directions)
    meanwhile = jobs.touch.enqueue()

    wait_for_state(meanwhile, JobState.SUCCEEDED)
    line_of(proxy, "listener", but=dead)
    assert "No notifications for now, polling goes on: its connection has been silent" in command.output()
    assert "loop failed" not in command.output()


def test_a_listener_that_lives_is_kept(start_behind: Start, ledger: Ledger, proxy: Proxy) -> None:
    # It is asked as often as the worker beats, and given up when it has not answered by the next time.
    command = start_behind("--poll-interval=0.1", "--heartbeat-interval=2")
    listener = line_of(proxy, "listener")
    # Long enough for it to be asked several times.
    many = [jobs.pause_briefly.enqueue(0.5) for _ in range(20)]

    wait_until_finished(many)

    assert proxy.lines("listener") == [listener]
    assert "No notifications" not in command.output()


@pytest.mark.parametrize("processes", [1, pytest.param(0, marks=long)])
def test_a_dead_connection_of_the_heartbeat_costs_no_lease(
    start_behind: Start, ledger: Ledger, proxy: Proxy, processes: int
) -> None:
    command = start_behind(f"--processes={processes}")
    worker = worker_of(command)
    held = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    dead = line_of(proxy, "heartbeat")

    dead.hold()

    line_of(proxy, "heartbeat", but=dead)
    seen = Worker.objects.get(pk=worker.pk).last_seen
    wait_until(lambda: Worker.objects.leased().filter(pk=worker.pk, last_seen__gt=seen).exists(), timeout=PATIENCE)
    ledger.open_gate()
    wait_for_state(held, JobState.SUCCEEDED)
    assert not Attempt.objects.exists()
    assert worker_of(command) == worker


@pytest.mark.long
def test_a_dead_connection_of_the_leader_keeps_no_job_from_its_time_for_long(
    start_behind: Start, ledger: Ledger, proxy: Proxy
) -> None:
    start_behind()
    dead = line_of(proxy, "leader")

    dead.hold()
    due = jobs.touch.using(run_after=timedelta(seconds=0.1)).enqueue()

    wait_for_state(due, JobState.SUCCEEDED)
    assert ledger.count("ran") == 1


def test_while_nothing_answers_jobs_run_on_and_are_written_afterwards(
    start_behind: Start, ledger: Ledger, proxy: Proxy
) -> None:
    command = start_behind("--heartbeat-timeout=2")
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)

    proxy.hold_all()
    wait_until(lambda: not Worker.objects.leased().exists(), message="the end of all leases", timeout=PATIENCE)
    ledger.open_gate()
    wait_until(lambda: ledger.count("end") == 2)
    proxy.cut_all()

    wait_until_finished(held)
    assert states_of(held) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    assert worker_of(command) == worker


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 0])
def test_a_worker_that_is_told_to_stop_while_nothing_answers_ends(
    start_behind: Start, proxy: Proxy, processes: int
) -> None:
    command = start_behind(f"--processes={processes}", "--shutdown-timeout=1")
    line_of(proxy, "exchange")

    proxy.hold_all()
    command.terminate()

    # What it holds of the database it cannot write, and so it does not wait for it.
    command.wait(60)
