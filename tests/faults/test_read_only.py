"""A server that may only be read, as during a failover: workers wait, say so once, and go on when it takes writes again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings
from django.db import connection

from django_jobs.models import Attempt, Worker
from django_jobs.states import JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import PATIENCE, states_of, wait_until_finished, worker_of
from tests.process.test_database_trouble import cut_all_sessions
from tests.processes import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(settings.DATABASE_URL.startswith("sqlite"), reason="a database in a file has no such setting"),
]


@contextmanager
def read_only() -> Iterator[None]:
    """Let every new session read only, and end the old ones but this."""
    name = connection.ops.quote_name(str(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        cut_all_sessions()
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@pytest.mark.parametrize("processes", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_worker_waits_while_the_server_is_read_only_and_goes_on_afterwards(
    start: Start, ledger: Ledger, processes: int
) -> None:
    command = start(f"--processes={processes}")
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)

    with read_only():
        ledger.open_gate()
        wait_until(lambda: ledger.count("end") == 2)
        waiting = jobs.touch.enqueue_many([((), {})] * 3)
        wait_until(lambda: not Worker.objects.leased().exists(), message="the end of all leases", timeout=PATIENCE)
        wait_until(lambda: "read-only transaction" in command.output(), message="a word about it", timeout=PATIENCE)
        meanwhile = states_of([*held, *waiting])

    wait_until_finished([*held, *waiting])
    assert meanwhile == {JobState.RUNNING, JobState.READY}
    assert states_of([*held, *waiting]) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert worker_of(command) == worker
    # Each loop says it once, and not with each pass.
    assert command.output().count("exchange loop failed and goes on: InternalError: cannot execute UPDATE") == 1
