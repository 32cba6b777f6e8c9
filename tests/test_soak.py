"""The soak's verdict: each thing that must not happen is found, and what may happen is not taken for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from benchmarks.soaking import ledger, tasks
from benchmarks.soaking.gauges import Gauges, Sample
from benchmarks.soaking.invariants import INVARIANTS, violations
from benchmarks.soaking.load import Promised
from django_jobs.models import Attempt, Job, Schedule
from django_jobs.states import AttemptOutcome, JobState

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not connection.features.has_select_for_update, reason="The soak is one of PostgreSQL."),
]


class Aftermath:
    """Jobs and a ledger as a soak leaves them, made by hand."""

    def __init__(self, file: Path) -> None:
        self.promised = Promised()
        self._file = file

    def job(self, kind: str = "quick", state: JobState = JobState.SUCCEEDED, attempt: int = 1, **fields: Any) -> int:
        """Add a job that has ended in this state, and say that it was promised."""
        pk = int(tasks.KINDS[kind].task.using(meta={"kind": kind}).enqueue(*fields.pop("args", [])).id)
        Job.objects.filter(pk=pk).update(state=state, attempt=attempt, finished_at=timezone.now(), **fields)
        self.promised.kinds[pk] = kind
        return pk

    def ran(
        self, job: int, attempt: int = 1, *, began: bool = True, ended: bool = True, at: float | None = None
    ) -> None:
        """Add an attempt, or its beginning or end alone, to the ledger."""
        at = timezone.now().timestamp() if at is None else at
        with self._file.open("a") as file:
            for event in ["begin"] * began + ["end"] * ended:
                file.write(f"{job},{attempt},1,{event},{at}\n")

    def lost(self, job: int, number: int, outcome: AttemptOutcome = AttemptOutcome.CRASHED) -> None:
        """Add an attempt to the history."""
        Attempt.objects.create(
            job_id=job,
            number=number,
            worker_id="w",
            started_at=timezone.now(),
            ended_at=timezone.now(),
            outcome=outcome,
        )

    def broken(self) -> list[str]:
        """Return the names of the invariants that do not hold."""
        ledger.load(self._file)
        return list(violations(self.promised))


@pytest.fixture
def aftermath(tmp_path: Path) -> Iterator[Aftermath]:
    execute("CREATE TABLE counter (value int)", "INSERT INTO counter VALUES (0)", "CREATE TABLE effect (job_id bigint)")
    yield Aftermath(tmp_path / "ledger")
    execute("DROP TABLE counter, effect", "DROP TABLE IF EXISTS ledger", "DISCARD TEMP")


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_jobs_that_ran_as_they_should_break_nothing(aftermath: Aftermath) -> None:
    aftermath.ran(aftermath.job())
    rescued = aftermath.job(attempt=2)
    aftermath.ran(rescued, 1, ended=False)
    aftermath.lost(rescued, 1)
    aftermath.ran(rescued, 2)
    counted = aftermath.job("atomic")
    aftermath.ran(counted)
    execute("UPDATE counter SET value = 1", f"INSERT INTO effect VALUES ({counted})")
    parent = aftermath.job("atomic, has a child")
    aftermath.ran(parent)
    child = int(tasks.child.enqueue(parent).id)
    Job.objects.filter(pk=child).update(state=JobState.CANCELLED)
    aftermath.promised.undone.add(child + 1000)
    fire(aftermath, 3)

    assert aftermath.broken() == []


def test_as_many_at_once_as_a_limit_says_break_nothing(aftermath: Aftermath) -> None:
    for _ in range(2):
        run_for_a_second(aftermath, aftermath.job("keyed", args=[0.1], concurrency_key="a", concurrency_limit=2))
    # Its worker was lost and woke up: it runs on beside those that have its place by then.
    woken = aftermath.job("keyed", args=[0.1], attempt=2, concurrency_key="b", concurrency_limit=2)
    aftermath.ran(woken, 1, at=timezone.now().timestamp() - 9, ended=False)
    aftermath.lost(woken, 1)
    aftermath.ran(woken, 1, at=timezone.now().timestamp() + 9, began=False)
    aftermath.ran(woken, 2, at=timezone.now().timestamp() + 1)
    run_for_a_second(aftermath, aftermath.job("keyed", args=[0.1], concurrency_key="b", concurrency_limit=2))

    assert aftermath.broken() == []


def test_an_attempt_that_ended_and_was_rescued_all_the_same_breaks_nothing(aftermath: Aftermath) -> None:
    # At least once: its worker died between the end and the commit.
    job = aftermath.job(attempt=2)
    aftermath.ran(job, 1)
    aftermath.lost(job, 1)
    aftermath.ran(job, 2)

    assert aftermath.broken() == []


def test_a_job_that_somebody_cancelled_may_end_as_cancelled(aftermath: Aftermath) -> None:
    aftermath.promised.cancelled.add(aftermath.job(state=JobState.CANCELLED))

    assert aftermath.broken() == []


def lose_a_job(aftermath: Aftermath) -> None:
    Job.objects.filter(pk=aftermath.job()).delete()


def run_what_was_rolled_back(aftermath: Aftermath) -> None:
    aftermath.promised.undone.add(4711)
    aftermath.ran(4711)


def forget_a_job(aftermath: Aftermath) -> None:
    aftermath.job(state=JobState.READY)


def leave_a_job_waiting(aftermath: Aftermath) -> None:
    aftermath.ran(aftermath.job(enqueued_at=timezone.now() - timedelta(seconds=200)))


def begin_an_attempt_twice(aftermath: Aftermath) -> None:
    job = aftermath.job()
    aftermath.ran(job)
    aftermath.ran(job)


def succeed_without_running(aftermath: Aftermath) -> None:
    aftermath.ran(aftermath.job(), ended=False)


def run_again_without_a_reason(aftermath: Aftermath) -> None:
    job = aftermath.job(attempt=2)
    aftermath.ran(job, 1)
    aftermath.ran(job, 2)


def run_again_though_it_had_not_failed(aftermath: Aftermath) -> None:
    job = aftermath.job(attempt=2)
    aftermath.ran(job, 1)
    aftermath.lost(job, 1, AttemptOutcome.SNOOZED)
    aftermath.ran(job, 2)


def run_an_attempt_that_nobody_counted(aftermath: Aftermath) -> None:
    job = aftermath.job()
    aftermath.ran(job, 1)
    aftermath.ran(job, 2)


def end_otherwise(aftermath: Aftermath) -> None:
    aftermath.job(state=JobState.FAILED)


def run_too_early(aftermath: Aftermath) -> None:
    soon = timezone.now() + timedelta(seconds=60)
    aftermath.ran(aftermath.job("scheduled", run_after=soon))


def run_too_many_of_a_key(aftermath: Aftermath) -> None:
    for _ in range(3):
        run_for_a_second(aftermath, aftermath.job("keyed", args=[0.1], concurrency_key="a", concurrency_limit=2))


def run_too_many_of_a_queue(aftermath: Aftermath) -> None:
    for _ in range(tasks.MOST_NARROW + 1):
        run_for_a_second(aftermath, aftermath.job("narrow", args=[0.1], queue_name=tasks.NARROW))


def run_for_a_second(aftermath: Aftermath, job: int) -> None:
    now = timezone.now().timestamp()
    aftermath.ran(job, ended=False, at=now)
    aftermath.ran(job, began=False, at=now + 1)


def leave_out_a_moment(aftermath: Aftermath) -> None:
    moments = fire(aftermath, 3)
    Job.objects.get(scheduled_for=moments[1]).delete()


def stop_to_fire(aftermath: Aftermath) -> None:
    fire(aftermath, 2)
    Schedule.objects.update(last_run_at=timezone.now() - timedelta(seconds=200))
    aftermath.ran(aftermath.job())


def fire(aftermath: Aftermath, number: int) -> list[datetime]:
    """Let the schedule of each second run so often, and its jobs end well; return the moments."""
    schedule = Schedule.objects.declare(tasks.TICKS, task=tasks.tick, cron="* * * * * *")
    assert schedule.next_run_at is not None
    moments = [schedule.next_run_at + timedelta(seconds=place) for place in range(number)]
    for moment in moments:
        Schedule.objects.fire_due(moment)
    for job in Job.objects.filter(schedule=schedule):
        aftermath.ran(job.pk)
    Job.objects.filter(schedule=schedule).update(state=JobState.SUCCEEDED, attempt=1, finished_at=timezone.now())
    return moments


def count_twice(aftermath: Aftermath) -> None:
    job = aftermath.job("atomic")
    aftermath.ran(job)
    execute("UPDATE counter SET value = 2", f"INSERT INTO effect VALUES ({job}), ({job})")


def count_what_failed(aftermath: Aftermath) -> None:
    execute("UPDATE counter SET value = 1")


def have_two_children(aftermath: Aftermath) -> None:
    parent = aftermath.job("atomic, has a child")
    aftermath.ran(parent)
    for _ in range(2):
        Job.objects.filter(pk=tasks.child.enqueue(parent).id).update(state=JobState.CANCELLED)


@pytest.mark.parametrize(
    ("violate", "name"),
    [
        (lose_a_job, "a job whose enqueue was committed is there"),
        (run_what_was_rolled_back, "a job whose enqueue was rolled back is not there, and never ran"),
        (forget_a_job, "no job is unfinished"),
        (leave_a_job_waiting, "no job was unfinished for longer than 120 s"),
        (begin_an_attempt_twice, "one attempt begins once"),
        (succeed_without_running, "what has succeeded has run to its end in its last attempt"),
        (run_again_without_a_reason, "every attempt that ran and was not the last has its reason in the history"),
        (
            run_again_though_it_had_not_failed,
            "an attempt that ran to its end runs again only if its worker was lost or gave it back",
        ),
        (run_an_attempt_that_nobody_counted, "no attempt has a number above the one of its job"),
        (end_otherwise, "every job ended as its kind must"),
        (run_too_early, "nothing ran before its time"),
        (run_too_many_of_a_key, "of a concurrency key no more ran at once than its limit says"),
        (run_too_many_of_a_queue, "of a queue no more ran at once than its max_running says"),
        (leave_out_a_moment, "each moment of a schedule has its job"),
        (stop_to_fire, "a schedule goes on as long as jobs come"),
        (count_twice, "every atomic job that succeeded has left its row, once, and no other has"),
        (count_what_failed, "the counter is the number of those rows"),
        (have_two_children, "an atomic job that succeeded has one child, and no other has any"),
    ],
)
def test_what_must_not_happen_is_found(aftermath: Aftermath, violate: Callable[[Aftermath], None], name: str) -> None:
    assert name in INVARIANTS
    violate(aftermath)

    assert aftermath.broken() == [name]


@pytest.mark.parametrize("name", ["memory", "connections", "dead_rows"])
def test_what_rises_from_the_first_third_to_the_last_is_found(name: str) -> None:
    gauges = Gauges.__new__(Gauges)
    level = {"memory": 60_000_000, "connections": 20, "dead_rows": 1000}
    gauges.samples = [
        Sample(at=float(at), unfinished=0, oldest=0.0, **level | ({name: level[name] * 10} if at > 20 else {}))
        for at in range(30)
    ]

    (found,) = gauges.rising()

    assert found.startswith(name.replace("_", " "))
    gauges.samples = gauges.samples[:20]
    assert gauges.rising() == []
