"""Workers that are restarted one host after the other while jobs keep coming, as a deploy does it."""

from __future__ import annotations

import pytest

from django_jobs.models import Queue
from django_jobs.states import JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import wait_for_state
from tests.processes import Command

from .producers import Producers, assert_each_ran_once, longest_idle, many_at_once, one_by_one, wait_for_more_jobs

# Leases are not what these stories are about.
PATIENT = ("--heartbeat-interval=1", "--heartbeat-timeout=20")
# The longest (seconds) that ready jobs may wait while none runs: a busy machine, not a restart, takes most of it.
IDLE = 2.0


def start_host(start: Start, place: int) -> Command:
    """Start a host that takes jobs as all others, and those of a queue of its own."""
    Queue.objects.declare(f"host-{place}")
    return start(*PATIENT, "--queue=default", f"--queue=host-{place}")


def restart_each(hosts: list[Command], start: Start) -> list[int]:
    """Restart the hosts one after the other, each in the middle of a job; return these jobs."""
    held: list[int] = []
    for place, host in enumerate(hosts):
        wait_for_more_jobs()
        slow = jobs.pause_briefly.using(queue_name=f"host-{place}").enqueue(0.5)
        wait_for_state(slow, JobState.RUNNING)
        assert host.stop() == 0, host.output()
        hosts[place] = start_host(start, place)
        # Nobody else takes it: each host has done something before the story goes on.
        first = jobs.touch.using(queue_name=f"host-{place}").enqueue()
        wait_for_state(first, JobState.SUCCEEDED)
        held += [int(slow.id), int(first.id)]
    return held


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
    hosts = [start_host(start, place) for place in range(count)]
    with Producers(one_by_one, many_at_once) as producers:
        held = [pk for _ in range(rounds) for pk in restart_each(hosts, start)]
        wait_for_more_jobs()

    assert_each_ran_once(ledger, [*producers.enqueued, *held])
    assert len({entry.pid for entry in ledger.entries()}) == count * (rounds + 1)
    assert longest_idle(ledger, producers.enqueued) < IDLE
