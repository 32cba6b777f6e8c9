"""Verbs that meet at the same rows, one after the other by force: each job changes once, and nobody is overruled.

One session has written and not yet committed; the other comes to the same rows, and waits or passes over them. Here are
the meetings that the tests of the single verbs leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_jobs.exceptions import LeaseLost
from django_jobs.models import Attempt, Job, Lease, Queue, Worker
from django_jobs.models.database import from_now
from django_jobs.models.lease import LEADER
from django_jobs.models.rescue import rescue_lost
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from django_jobs.worker import leader as leader_module
from django_jobs.worker.duties import own_duties
from django_jobs.worker.leader import Leader
from tests import tasks
from tests.clocks import StillClock
from tests.rivals import TIMEOUT, Rival, let_pass, wait_until_blocked
from tests.rows import HOUR, LEASE, claim, claimed, end_lease, outcome, row, start_worker, state_of, write

pytestmark = pytest.mark.django_db(transaction=True)

VERBS = ["succeed", "fail", "retry", "snooze", "cancel", "release"]


@pytest.fixture(autouse=True)
def worker() -> str:
    return start_worker()


def meet(first: Callable[[], Any], second: Callable[[], Any], meanwhile: Callable[[Any], None]) -> tuple[Any, Any]:
    """Have ``first`` write, then begin ``second``, and commit the first when ``meanwhile`` has seen the second there."""
    with Rival() as one, Rival() as other:
        one.begin()
        answer = one.run(first)
        call = other.start(second)
        meanwhile(call)
        one.commit()
        return answer, call.result(TIMEOUT)


def waits(call: Any) -> None:
    """See the second call wait for the rows of the first."""
    wait_until_blocked()


def ids_of(jobs: Any) -> list[int]:
    return [job.id for job in jobs]


def outcomes() -> list[str]:
    return list(Attempt.objects.order_by("job_id", "number").values_list("outcome", flat=True))


# Cancel


@pytest.mark.parametrize("verb", VERBS)
def test_an_outcome_that_waits_for_a_cancellation_ends_its_job_as_cancelled(verb: str) -> None:
    job = claimed()

    moved, written = meet(
        Job.objects.filter(pk=job.id).cancel, lambda: write(outcome(job, verb, result=1, delay=60.0)), waits
    )

    assert (moved, state_of(job)) == (1, JobState.CANCELLED)
    assert ([done.verb for done in written.done], written.late) == (["cancel"], [])
    assert outcomes() == [AttemptOutcome.CANCELLED]


@pytest.mark.parametrize("verb", ["fail", "snooze", "cancel"])
def test_a_cancellation_that_waits_for_an_outcome_finds_the_job_as_it_is_then(verb: str) -> None:
    job = claimed()

    _, moved = meet(lambda: write(outcome(job, verb, delay=60.0)), Job.objects.filter(pk=job.id).cancel, waits)

    ended = JobState.FAILED if verb == "fail" else JobState.CANCELLED
    assert (moved, state_of(job)) == (1 if verb == "snooze" else 0, ended)
    assert row(job.id).cancel_requested_at is None


def test_a_cancellation_that_waits_for_the_staging_of_a_retry_cancels_the_ready_job() -> None:
    job = claimed(max_attempts=5)
    write(outcome(job, "retry", delay=0.0))

    staged, moved = meet(Job.objects.stage_due, Job.objects.filter(pk=job.id).cancel, waits)

    assert (staged, moved, state_of(job)) == (1, 1, JobState.CANCELLED)


def test_a_retry_that_is_just_being_cancelled_is_not_staged() -> None:
    job = claimed(max_attempts=5)
    write(outcome(job, "retry", delay=0.0))

    moved, staged = meet(Job.objects.filter(pk=job.id).cancel, Job.objects.stage_due, let_pass)

    assert (moved, staged, state_of(job)) == (1, 0, JobState.CANCELLED)


def test_a_cancellation_that_waits_for_a_rescue_cancels_the_ready_job() -> None:
    job = claimed(max_attempts=5)
    end_lease()

    rescued, moved = meet(rescue_lost, Job.objects.filter(pk=job.id).cancel, waits)

    assert (rescued, moved, state_of(job)) == (1, 1, JobState.CANCELLED)


def test_a_job_of_a_lost_worker_that_is_just_being_cancelled_ends_as_cancelled_and_never_as_ready() -> None:
    job = claimed(max_attempts=5)
    end_lease()

    moved, rescued = meet(Job.objects.filter(pk=job.id).cancel, rescue_lost, let_pass)
    later = rescue_lost()

    assert (moved, rescued + later, state_of(job)) == (1, 1, JobState.CANCELLED)
    assert outcomes() == [AttemptOutcome.CRASHED]


# Requeue


def test_of_two_requeues_at_once_one_moves_the_job() -> None:
    job = claimed(max_attempts=1)
    write(outcome(job, "fail"))

    moved = meet(Job.objects.filter(pk=job.id).requeue, Job.objects.filter(pk=job.id).requeue, waits)

    assert moved == (1, 0)
    assert (state_of(job), row(job.id).max_attempts) == (JobState.READY, 2)


# The loss of a worker that is alive


def test_what_a_worker_claims_while_it_is_marked_as_lost_does_not_stay_with_it() -> None:
    Queue.objects.declare("default")
    ids = [int(tasks.noop.enqueue().id) for _ in range(2)]

    def claim_if_it_may() -> list[int]:
        try:
            return ids_of(claim())
        except LeaseLost:
            # Where rows cannot be locked it had to wait, and saw the mark.
            return []

    rescued, taken = meet(lambda: rescue_lost(["w1"], "It was taken for dead."), claim_if_it_may, let_pass)
    later = rescue_lost()

    assert (rescued, later) == (0, len(taken))
    assert {state_of(job) for job in map(row, ids)} == {JobState.READY}
    assert Worker.objects.extend(["w1"], LEASE) == {"w1"}
    with pytest.raises(LeaseLost):
        claim()


def test_what_a_worker_is_just_claiming_when_it_is_marked_as_lost_does_not_stay_with_it() -> None:
    Queue.objects.declare("default")
    ids = [int(tasks.noop.enqueue().id) for _ in range(2)]

    taken, rescued = meet(claim, lambda: rescue_lost(["w1"], "It was taken for dead."), let_pass)
    later = rescue_lost()

    assert ids_of(taken) == ids
    assert rescued + later == 2
    assert {state_of(job) for job in taken} == {JobState.READY}
    assert [late.verb for late in write(*[outcome(job, "succeed") for job in taken]).late] == ["succeed", "succeed"]


def test_a_leader_and_a_supervisor_that_rescue_the_same_worker_at_once_take_each_job_once() -> None:
    jobs = [claimed(max_attempts=5) for _ in range(3)]
    end_lease()

    by_the_leader, by_the_supervisor = meet(rescue_lost, lambda: rescue_lost(["w1"], "It was killed."), let_pass)

    assert by_the_leader + by_the_supervisor == 3
    assert outcomes() == [AttemptOutcome.CRASHED] * 3
    assert [(state_of(job), row(job.id).attempt) for job in jobs] == [(JobState.READY, 1)] * 3


def test_a_heartbeat_that_waits_for_the_rescue_of_its_worker_is_told_that_the_lease_is_gone() -> None:
    job = claimed(max_attempts=5)
    end_lease()

    rescued, gone = meet(rescue_lost, lambda: Worker.objects.extend(["w1"], LEASE), waits)

    assert (rescued, gone, state_of(job)) == (1, {"w1"}, JobState.READY)
    assert Worker.objects.get().state == WorkerState.LOST


# Two leaders


def test_two_leaders_at_once_do_each_thing_once(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    StillClock(monkeypatch, leader_module)
    leaders = [_leader("s1"), _leader("s2")]
    due = [int(tasks.noop.using(run_after=HOUR).enqueue().id) for _ in range(3)]
    Job.objects.filter(pk__in=due).update(run_after=from_now(-HOUR))
    tasks.noop.using(queue_name="nobody knows").enqueue()
    lost = [claimed(max_attempts=5) for _ in range(3)]
    finished = [claimed() for _ in range(3)]
    write(*[outcome(job, "succeed") for job in finished])
    Job.objects.filter(pk__in=ids_of(finished)).update(finished_at=from_now(-timedelta(days=1000)))
    end_lease()

    meet(leaders[0].run_once, leaders[1].run_once, waits)

    assert [leader.is_leading for leader in leaders] == [True, True]
    assert [state_of(row(pk)) for pk in due] == [JobState.READY] * 3
    assert [(state_of(job), row(job.id).attempt) for job in lost] == [(JobState.READY, 1)] * 3
    assert outcomes() == [AttemptOutcome.CRASHED] * 3
    assert not Job.objects.finished().exists()
    assert Queue.objects.filter(name="nobody knows").count() == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def _leader(holder: str) -> Leader:
    """Return one who leads, and goes on doing so when another takes the lease from it, as one that was frozen does."""
    start_worker(holder)
    leader = Leader(holder, (), lease=30.0, poll_interval=1.0)
    leader.run_once()
    leader._duties = [leader_module.DutyLoop(duty) for duty in own_duties(30.0)]
    Lease.objects.filter(name=LEADER).update(expires_at=from_now(-HOUR))
    return leader
