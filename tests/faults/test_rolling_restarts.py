"""Workers that are restarted one host after the other while jobs keep coming, as a deploy does it."""

from __future__ import annotations

import pytest

from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.processes import Command

from .producers import Producers, assert_each_ran_once, longest_idle, many_at_once, one_by_one, wait_for_more_jobs

# Leases are not what these stories are about.
PATIENT = ("--heartbeat-interval=1", "--heartbeat-timeout=20")
# The longest (seconds) that ready jobs may wait while none runs: a busy machine, not a restart, takes most of it.
IDLE = 2.0


def restart_each(hosts: list[Command], start: Start) -> None:
    for place, host in enumerate(hosts):
        wait_for_more_jobs()
        assert host.stop() == 0, host.output()
        hosts[place] = start(*PATIENT)


@pytest.mark.parametrize(
    ("count", "rounds"),
    [
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(3, 3, marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
def test_a_rolling_restart_under_load_loses_and_doubles_no_job_and_the_queue_is_never_idle(
    start: Start, ledger: Ledger, count: int, rounds: int
) -> None:
    hosts = [start(*PATIENT) for _ in range(count)]
    with Producers(one_by_one, many_at_once) as producers:
        for _ in range(rounds):
            restart_each(hosts, start)
        wait_for_more_jobs()

    assert_each_ran_once(ledger, producers.enqueued)
    assert len({entry.pid for entry in ledger.entries()}) == count * (rounds + 1)
    assert longest_idle(ledger, producers.enqueued) < IDLE
