"""Workers that take jobs of some priorities only: what they claim, when they are done, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs.checks import check_settings
from django_jobs.exceptions import InvalidOption
from django_jobs.models import Job, Queue
from django_jobs.models import Worker as WorkerRow
from django_jobs.models.claim import ANY, Kind
from django_jobs.models.database import exclusive
from django_jobs.models.marks import Marks
from django_jobs.models.turn import turn_of
from django_jobs.states import JobState
from django_jobs.worker import Worker, capacity, duties
from django_jobs.worker.options import WorkerOptions, resolve_options

from . import tasks
from .exchanges import Hand, enqueue, states
from .own_sessions import needs_compiling
from .rows import WORKER, start_worker

pytestmark = pytest.mark.django_db

PRIORITIES = (-100, -1, 0, 10, 50, 100)


def taken(kind: Kind, *queues: str) -> list[int]:
    """Claim jobs of this kind and return their priorities, in order."""
    with exclusive():
        return [job.priority for job in Job.objects.claim(WORKER, queues or ("default",), 100, kind)]


def enqueue_each(*priorities: int, **using: Any) -> dict[int, int]:
    """Enqueue a job of each priority and return their ids."""
    return {priority: enqueue(1, priority=priority, **using)[0] for priority in priorities}


# What is claimed


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ANY, [100, 50, 10, 0, -1, -100]),
        (Kind(lowest=10), [100, 50, 10]),
        (Kind(highest=10), [10, 0, -1, -100]),
        (Kind(lowest=0, highest=10), [10, 0]),
        (Kind(lowest=50, highest=50), [50]),
        (Kind(lowest=11, highest=49), []),
    ],
)
def test_jobs_are_taken_from_the_first_priority_to_the_second(kind: Kind, expected: list[int]) -> None:
    start_worker()
    enqueue_each(*PRIORITIES)

    assert taken(kind) == expected


def test_a_range_counts_in_each_of_several_queues() -> None:
    start_worker()
    for name in ("default", "mail"):
        enqueue_each(*PRIORITIES, queue_name=name)

    assert taken(Kind(lowest=0, highest=10), "default", "mail", "empty") == [10, 10, 0, 0]


def test_a_range_counts_also_where_jobs_of_one_kind_are_searched() -> None:
    start_worker()
    for task in (tasks.noop, tasks.add_async):
        for priority in (0, 10, 20):
            task.using(priority=priority).enqueue()
    paths = frozenset({tasks.add_async.path})

    assert taken(Kind(paths, is_without=False, lowest=5, highest=15)) == [10]
    assert taken(Kind(paths, is_without=True, lowest=5)) == [20, 10]


@needs_compiling
def test_a_marked_claim_keeps_to_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_jobs.models.marks._SLOW", 0.005)
    start_worker()
    ids = enqueue_each(0, 10, 20)
    marks = Marks()
    for _ in range(3):
        marks.learn("default", [(priority, job_id) for priority, job_id in ids.items()], is_full=True, seconds=9.0)
    assert len(marks.of("default")) == 3

    _, claimed = Job.objects.take_turn(WORKER, (), ["default"], 10, Kind(lowest=10, highest=10), marks)

    assert [job.priority for job in claimed] == [10]


@needs_compiling
def test_without_a_range_the_statement_says_nothing_of_priorities() -> None:
    assert '"priority" >=' not in turn_of(Job.objects.all(), ANY)._turn
    assert '"priority" <=' not in turn_of(Job.objects.all(), ANY)._turn
    assert '"priority" >=' in turn_of(Job.objects.all(), Kind(lowest=1))._turn


def test_a_job_whose_row_has_an_odd_priority_is_no_workers_secret() -> None:
    start_worker()
    [job_id] = enqueue(1)
    Job.objects.filter(pk=job_id).update(priority=3000)

    assert taken(Kind(lowest=10)) == [3000]


@pytest.mark.django_db(transaction=True)
def test_an_exchange_claims_what_its_options_say() -> None:
    Queue.objects.declare("default")
    ids = enqueue_each(*PRIORITIES)

    with Hand(min_priority=0, max_priority=50, concurrency=10) as hand:
        held = hand.settle()

    assert set(held) == {ids[0], ids[10], ids[50]}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_whatever_a_worker_has_room_for_it_keeps_to_its_range(
    monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    paths = frozenset({tasks.add_async.path} if asynchronous else ())
    monkeypatch.setattr(capacity, "async_paths", lambda: paths)
    rooms = Hand(min_priority=5, max_priority=50).capacity

    kinds = [rooms.wanted()]
    rooms._on_loop = 100
    kinds.append(rooms.wanted())

    assert [(wanted.kind.lowest, wanted.kind.highest) for wanted in kinds if wanted] == [(5, 50)] * 2
    assert [wanted.kind.paths for wanted in kinds if wanted] == [frozenset(), paths]


# When a burst is done


def test_jobs_of_other_priorities_are_no_reason_to_go_on() -> None:
    enqueue_each(-10, 10)

    assert duties.bring_up_jobs(["*"])
    assert duties.bring_up_jobs(["*"], kind=Kind(lowest=10))
    assert duties.bring_up_jobs(["*"], kind=Kind(highest=-10))
    assert not duties.bring_up_jobs(["*"], kind=Kind(lowest=11))
    assert not duties.bring_up_jobs(["*"], kind=Kind(highest=-11))
    assert not duties.bring_up_jobs(["*"], kind=Kind(lowest=-9, highest=9))


def test_jobs_of_the_right_priority_in_another_queue_are_no_reason_to_go_on() -> None:
    enqueue_each(10, queue_name="other")
    enqueue_each(0, queue_name="mine")

    assert not duties.bring_up_jobs(["mine"], kind=Kind(lowest=10))
    assert duties.bring_up_jobs(["other"], kind=Kind(lowest=10))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["burst", "once"])
def test_a_worker_ends_when_nothing_of_its_priorities_is_left(how: str) -> None:
    ids = enqueue_each(0, 10, 20)
    worker = Worker(min_priority=10, max_priority=10, poll_interval=0.05, **{how: True})
    worker.start()
    try:
        assert worker.wait(30)
    finally:
        code = worker.stop()

    assert code == 0
    assert states(list(ids.values())) == [JobState.READY, JobState.SUCCEEDED, JobState.READY]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["burst", "once"])
def test_a_worker_ends_when_there_never_was_anything_of_its_priorities(how: str) -> None:
    ids = enqueue_each(0)
    worker = Worker(min_priority=10, poll_interval=0.05, **{how: True})
    worker.start()
    try:
        assert worker.wait(30)
    finally:
        code = worker.stop()

    assert (code, states(list(ids.values()))) == (0, [JobState.READY])


# What is said and refused


@pytest.mark.parametrize(
    ("lowest", "highest"), [(1, 0), (101, 101), (-100, 101), (101, 100), (0, 1000)], ids=lambda value: f"{value}"
)
def test_a_range_that_holds_no_priority_is_refused_with_both_ends(lowest: int, highest: int) -> None:
    with pytest.raises(InvalidOption) as caught:
        Worker(min_priority=lowest, max_priority=highest)

    assert f"MIN_PRIORITY ({lowest}) and MAX_PRIORITY ({highest})" in str(caught.value)
    assert "both between -100 and 100" in str(caught.value)


@pytest.mark.parametrize("flags", [{"MIN_PRIORITY": -101}, {"MAX_PRIORITY": -101}, {"MIN_PRIORITY": 1.5}])
def test_what_is_no_priority_is_refused_by_its_name(flags: dict[str, Any]) -> None:
    (name,) = flags

    with pytest.raises(InvalidOption, match=f"--{name.lower().replace('_', '-')} must be"):
        resolve_options(flags)


def test_a_range_may_come_from_environment_and_settings(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DJANGO_JOBS = {"MAX_PRIORITY": 50}
    monkeypatch.setenv("DJANGO_JOBS_MIN_PRIORITY", "-5")

    options = resolve_options({})

    assert (options.min_priority, options.max_priority) == (-5, 50)
    assert options.kind == Kind(lowest=-5, highest=50)
    assert WorkerOptions.from_json(options.as_json()) == options


def test_a_range_in_the_settings_that_cannot_work_is_a_check_error(settings: Any) -> None:
    settings.DJANGO_JOBS = {"MIN_PRIORITY": 60, "MAX_PRIORITY": 50}

    assert any("MIN_PRIORITY (60) and MAX_PRIORITY (50)" in problem.msg for problem in check_settings(None))


def test_workers_without_a_range_take_everything() -> None:
    assert resolve_options({}).kind == ANY


@pytest.mark.django_db(transaction=True)
def test_the_row_of_a_worker_says_what_it_takes() -> None:
    with Worker(worker_id="mine", min_priority=10, max_priority=20):
        row = WorkerRow.objects.get(worker_id="mine")

    assert (row.min_priority, row.max_priority) == (10, 20)
