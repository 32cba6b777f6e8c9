"""Behind a pooler in transaction mode everything works, without notifications, also where the settings do not tell of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings

from django_jobs.models import Attempt, Job
from django_jobs.states import AttemptOutcome, JobState
from example_project import postgres_keeper
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import outcomes_of, states_of, wait_for_state, wait_until_finished, worker_of
from tests.processes import wait_until

from .pooler import Pooler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(settings.DATABASE_URL.startswith("sqlite"), reason="a database in a file has no pooler"),
]

PGBOUNCER = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
auth_type = plain
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
unix_socket_dir =
"""
# With time for a busy machine: a session behind a pooler cannot be asked about, and is cut when it is late.
LEASE = ("--heartbeat-interval=0.5", "--heartbeat-timeout=8")
TOLD = "?DISABLE_SERVER_SIDE_CURSORS=True"
FORGOTTEN = ""
# What a session keeps that a worker has set up for itself.
TRACES = """
SELECT current_setting('enable_seqscan'), current_setting('plan_cache_mode'),
       (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_prepared_statements)
"""


@pytest.fixture(params=["ours", pytest.param("pgbouncer", marks=pytest.mark.long)])
def pooled_url(request: pytest.FixtureRequest, project_env: dict[str, str]) -> Iterator[str]:
    """Return the URL of the test database behind a pooler."""
    url = project_env["DATABASE_URL"]
    with ExitStack() as stack:
        if request.param == "ours":
            port = stack.enter_context(Pooler(url.replace("postgres:", "postgresql:", 1))).port
        else:
            port = _start_pgbouncer(stack, url)
        address = urlsplit(url)
        yield address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{port}").geturl()


def _start_pgbouncer(stack: ExitStack, url: str) -> int:
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    address = urlsplit(url)
    identity = postgres_keeper.server_identity()
    directory = postgres_keeper.temporary_directory(stack, identity)
    port = postgres_keeper.free_port()
    (directory / "users").write_text(f'"{address.username}" "{address.password}"\n')
    configuration = PGBOUNCER.format(
        host=address.hostname, port=address.port or 5432, own_port=port, directory=directory
    )
    (directory / "ini").write_text(configuration)
    for name in ("users", "ini"):
        (directory / name).chmod(0o644)
    bouncer = subprocess.Popen([program, "-q", str(directory / "ini")], **identity, cwd="/", stderr=subprocess.DEVNULL)
    stack.callback(bouncer.wait)
    stack.callback(bouncer.kill)
    wait_until(lambda: _answers(port), message="pgbouncer to answer")
    return port


def _answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def traces(pooled_url: str) -> Callable[[], set[tuple[object, ...]]]:
    """Return a function that says what is left in the sessions of the pooler."""

    def traces() -> set[tuple[object, ...]]:
        url = pooled_url.replace("postgres:", "postgresql:", 1)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            return {connection.execute(TRACES).fetchone() or () for _ in range(12)}

    return traces


@pytest.mark.parametrize("told", [TOLD, FORGOTTEN], ids=["told", "forgotten"])
def test_every_kind_of_job_runs_behind_a_pooler(
    start: Start, ledger: Ledger, pooled_url: str, told: str, traces: Callable[[], set[tuple[object, ...]]]
) -> None:
    command = start("--concurrency=4", *LEASE, env={"DATABASE_URL": pooled_url + told})
    worker = worker_of(command)

    several = [
        *jobs.touch.enqueue_many([((), {})] * 40),
        jobs.touch.using(queue_name="other").enqueue(),
        jobs.touch.using(run_after=timedelta(seconds=0.3)).enqueue(),
    ]
    own_queries = [*jobs.query.enqueue_many([((), {})] * 2)]
    wait_until_finished(several)
    failing = jobs.fail.enqueue()
    ledger.open_gate()
    wait_until_finished([*own_queries, failing])

    assert states_of([*several, *own_queries]) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert outcomes_of(failing) == [AttemptOutcome.FAILED] * 3
    assert worker_of(command) == worker
    assert command.output().count("No notifications for now") == 1
    assert "DISABLE_SERVER_SIDE_CURSORS" in command.output()
    assert "loop failed" not in command.output()
    assert command.stop() == 0
    assert traces() == {("on", "auto", 0, 0)}


def test_a_running_job_is_cancelled_behind_a_pooler(start: Start, ledger: Ledger, pooled_url: str) -> None:
    start(*LEASE, env={"DATABASE_URL": pooled_url + TOLD})
    held = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)

    held.cancel()

    wait_for_state(held, JobState.CANCELLED)
    assert Attempt.objects.get(job=held.id).outcome == AttemptOutcome.CANCELLED


def test_a_killed_pooler_costs_no_job(start: Start, ledger: Ledger, project_env: dict[str, str]) -> None:
    url = project_env["DATABASE_URL"]
    address = urlsplit(url)
    with Pooler(url.replace("postgres:", "postgresql:", 1)) as first:
        pooled = address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{first.port}").geturl()
        command = start(*LEASE, env={"DATABASE_URL": pooled})
        held = jobs.hold.enqueue_many([((), {})] * 2)
        wait_until(lambda: ledger.count("begin") == 2)
    ledger.open_gate()
    wait_until(lambda: ledger.count("end") == 2)

    with Pooler(url.replace("postgres:", "postgresql:", 1), port=first.port):
        wait_until_finished(held)
        command.stop()

    assert states_of(held) == {JobState.SUCCEEDED}
    assert not Attempt.objects.exists()
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
