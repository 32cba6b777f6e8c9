"""A turn as one statement does what the querysets that it is made of do one after the other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from django_jobs.exceptions import LeaseLost
from django_jobs.models import Job, Queue, job_queryset
from django_jobs.models.claim import ANY, Kind
from django_jobs.models.database import from_now
from django_jobs.models.rescue import rescue_lost
from django_jobs.outcomes import ClaimedJob, Failure, Fate
from django_jobs.states import JobState
from django_jobs.worker import turns

from . import tasks
from .exchanges import Hand, enqueue
from .own_sessions import needs_compiling
from .rows import HOUR, claim, claimed, end_lease, outcome, row, start_worker, write

pytestmark = [pytest.mark.django_db, pytest.mark.slow, needs_compiling]

T = TypeVar("T")
QUEUES = ["a", "b", "c"]
ASYNC = frozenset({"tests.tasks.add_async"})
# Every kind of value that JSON has, and those that its texts could be taken for.
VALUES: list[Any] = [
    None, True, False, 0, -1, 10**30, 1.5, -0.25, 1e300, "", "[]", "{}", "null", "1", "ü 漢 \u2028 \"'\\%s",
    [], {}, [[]], [{}], {"": []}, {"a": {"b": [1, [2, {"c": None}]]}}, list(range(50)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def worker() -> str:
    return start_worker()


@pytest.fixture
def both_ways(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], T]], tuple[T, T]]:
    """Return a function that does something with compiled statements, undoes it, and does it with querysets."""

    def do(act: Callable[[], T]) -> tuple[T, T]:
        answers = []
        for compiles in (True, False):
            for module in (job_queryset, turns):
                monkeypatch.setattr(module, "can_compile", lambda connection, compiles=compiles: compiles)
            with transaction.atomic():
                answers.append(act())
                transaction.set_rollback(True)
        return answers[0], answers[1]

    return do


BothWays = Callable[[Callable[[], T]], tuple[T, T]]


def told(job: ClaimedJob) -> str:
    """Return all that a claimed job holds, types too; of the moments at which it was claimed, whether they are such."""
    now = datetime.now(UTC)
    assert abs(now - job.last_attempted_at) < timedelta(minutes=1)
    assert {moment.utcoffset() for moment in (job.enqueued_at, job.started_at, job.last_attempted_at)} == {timedelta(0)}
    is_first = job.started_at == job.last_attempted_at
    times = [job.enqueued_at, job.run_after, None if is_first else job.started_at]
    shown = [None if moment is None else moment.isoformat() for moment in times]
    return repr(
        (job._replace(enqueued_at=now, run_after=None, started_at=now, last_attempted_at=now)[:8], shown)
    ) + repr((job.meta, job.backend, job.worker_id, job.history, type(job.args), type(job.kwargs)))


def stored() -> list[dict[str, Any]]:
    """Return all rows as they are now; of the times that a claim or an outcome writes, whether they are there."""
    written = ("started_at", "last_attempted_at", "finished_at")
    return [values | {name: bool(values[name]) for name in written} for values in Job.objects.order_by("pk").values()]


def fill_queues(seed: int, count: int = 40) -> None:
    """Enqueue jobs of all kinds on three queues: new ones, such as were tried before, and such as cannot be claimed."""
    dice = random.Random(seed)
    for number in range(count):
        task = dice.choice([tasks.noop, tasks.noop, tasks.add_async])
        using = {"queue_name": dice.choice(QUEUES), "priority": dice.choice([-100, -1, 0, 0, 0, 7, 100])}
        value = VALUES[number % len(VALUES)]
        task.using(**using, meta={"number": number, "value": value}).enqueue(value, dice.random(), key=value)
    for verb in ("retry", "release", "snooze"):
        tried = claim(limit=4, queues=dice.sample(QUEUES, 2))
        failure = Failure("builtins.ValueError", "bad", f"trace of {verb}", "f")
        write(*[outcome(job, verb, delay=0.0, failure=failure, meta={"tried": verb}) for job in tried])
        Job.objects.filter(pk__in=[job.id for job in tried]).stage()
    for verb in ("succeed", "fail", "cancel"):
        write(*[outcome(job, verb) for job in claim(limit=1, queues=QUEUES)])
    claim(limit=2, queues=QUEUES)
    tasks.noop.using(run_after=HOUR, queue_name="a").enqueue()


# Claims


LIMITS = [0, 1, 2, 7, 1000]
QUEUE_NAMES: list[list[str]] = [[], ["a"], ["b", "a"], QUEUES, ["nothing here"], ["nothing here", "c"]]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", [ANY, Kind(ASYNC, False), Kind(ASYNC, True)], ids=["any", "async", "not async"])
def test_a_compiled_claim_takes_the_same_jobs_in_the_same_order_with_the_same_values(
    both_ways: BothWays[Any], seed: int, kind: Kind
) -> None:
    fill_queues(seed)

    for queues, limit in itertools.product(QUEUE_NAMES, LIMITS):
        compiled, plain = both_ways(
            lambda queues=queues, limit=limit: (
                [told(job) for job in Job.objects.claim("w1", queues, limit, kind)],
                stored(),
            )
        )

        assert compiled == plain, (queues, limit)
        assert len(compiled[0]) <= limit


def test_the_jobs_that_are_compared_are_of_every_kind() -> None:
    fill_queues(0)

    jobs = claim(limit=1000, queues=QUEUES)

    assert {job.queue_name for job in jobs} == set(QUEUES)
    assert {bool(job.history) for job in jobs} == {bool(job.run_after) for job in jobs} == {True, False}
    assert {job.started_at == job.last_attempted_at for job in jobs} == {True, False}
    assert {job.task_path in ASYNC for job in jobs} == {True, False}
    assert len({job.priority for job in jobs}) > 3


def pause_without_end() -> None:
    Queue.objects.pause("a")


def pause_until_later() -> None:
    Queue.objects.filter(name="a").update(paused_at=Now(), resume_at=from_now(HOUR))


def pause_that_has_ended() -> None:
    Queue.objects.filter(name="a").update(paused_at=Now(), resume_at=from_now(-HOUR))


def pause_all() -> None:
    for name in QUEUES:
        Queue.objects.pause(name)


@pytest.mark.parametrize("queues", [["a"], ["a", "b"], QUEUES], ids=str)
@pytest.mark.parametrize("pause", [pause_without_end, pause_until_later, pause_that_has_ended, pause_all])
def test_a_compiled_claim_takes_nothing_from_a_paused_queue(
    both_ways: BothWays[Any], pause: Callable[[], None], queues: list[str]
) -> None:
    fill_queues(1)
    for name in QUEUES:
        Queue.objects.declare(name)
    pause()

    compiled, plain = both_ways(lambda: [(job.queue_name, told(job)) for job in Job.objects.claim("w1", queues, 30)])

    assert compiled == plain
    assert ("a" in dict(compiled)) == (pause is pause_that_has_ended)


def test_a_compiled_claim_leaves_out_the_jobs_that_others_take_while_it_looks(both_ways: BothWays[Any]) -> None:
    fill_queues(2)

    def claim_in_small_steps() -> list[str]:
        jobs: list[str] = []
        while more := Job.objects.claim("w1", QUEUES, 3):
            jobs += map(told, more)
        return jobs

    compiled, plain = both_ways(claim_in_small_steps)

    assert compiled == plain
    assert len(compiled) > 20


# Successes


def other_worker(job: ClaimedJob) -> None:
    Job.objects.filter(pk=job.id).update(worker_id="w2")


def rescued(job: ClaimedJob) -> None:
    Job.objects.rescue({job.id: Fate()})


def rescued_and_claimed_again(job: ClaimedJob) -> None:
    rescued(job)
    claim(queues=[job.queue_name])


def cancel_requested(job: ClaimedJob) -> None:
    Job.objects.filter(pk=job.id).cancel()


def gone(job: ClaimedJob) -> None:
    Job.objects.filter(pk=job.id).delete()


def ended_as(verb: str) -> Callable[[ClaimedJob], None]:
    return lambda job: (write(outcome(job, verb, delay=60.0)), None)[1]


BETWEEN: dict[str, Callable[[ClaimedJob], None]] = {
    "nothing": lambda job: None,
    "another worker has it": other_worker,
    "rescued": rescued,
    "rescued and claimed again": rescued_and_claimed_again,
    "asked to stop": cancel_requested,
    "deleted": gone,
    **{f"ended as {verb}": ended_as(verb) for verb in ("succeed", "fail", "cancel", "retry", "snooze", "release")},
}


def attempts_of_each() -> list[ClaimedJob]:
    """Return a running job for everything that can happen before its outcome is written, and let it happen."""
    jobs = []
    for number, happen in enumerate(BETWEEN.values()):
        name = f"between-{number}"
        first = claimed(queue_name=name)
        if number % 2:
            # Its second attempt, so that attempts of different numbers are written in one turn.
            write(outcome(first, "release"))
            [first] = claim(queues=[name])
        happen(first)
        jobs.append(first)
    return jobs


def test_the_fence_lets_the_same_successes_through(both_ways: BothWays[Any]) -> None:
    jobs = attempts_of_each()
    successes = [(job.id, job.attempt, None) for job in jobs]

    def in_one_turn() -> tuple[int, Any]:
        return Job.objects.take_turn("w1", successes, (), 0)[0], stored()

    def one_after_the_other() -> tuple[int, Any]:
        return sum(Job.objects.succeed("w1", attempt, [pk]) for pk, attempt, _ in successes), stored()

    compiled, plain = both_ways(in_one_turn)[0], both_ways(one_after_the_other)[1]

    assert compiled == plain
    assert compiled[0] == 1


def test_successes_of_which_some_are_refused_end_as_written_one_by_one(both_ways: BothWays[Any]) -> None:
    def through_the_exchange() -> Any:
        with Hand(concurrency=50) as hand:
            jobs = attempts_of_each()
            for job in jobs:
                hand.exchange._held[job.id] = job
                hand.end(job, duration=5.0)
            hand.exchange.is_claiming = False
            held = hand.turn()
            numbers = {job.id: number for number, job in enumerate(jobs)}
            told = sorted((numbers[pk], verb) for pk, verb in hand.told())
            return told, held, hand.exchange.processed, sorted(row.state for row in Job.objects.all())

    compiled, plain = both_ways(through_the_exchange)

    assert compiled == plain
    happened = [*BETWEEN]
    assert [(happened[number], verb) for number, verb in compiled[0]] == [
        ("nothing", "succeed"),
        ("asked to stop", "cancel"),
        ("ended as succeed", "succeed"),
    ]


def test_a_success_that_nobody_knows_changes_nothing() -> None:
    job = claimed()

    done, _ = Job.objects.take_turn("w1", [(10**15, 1, None), (job.id, 2, None), (job.id, 0, None)], (), 0)

    assert (done, row(job.id).state) == (0, JobState.RUNNING)


def test_a_success_that_is_told_twice_is_written_once() -> None:
    job = claimed()

    done, _ = Job.objects.take_turn("w1", [(job.id, 1, None)] * 2, (), 0)

    assert (done, row(job.id).state) == (1, JobState.SUCCEEDED)


def test_successes_and_claims_of_one_turn_do_not_meddle_with_each_other() -> None:
    ended = claimed(queue_name="a")
    new = [int(tasks.noop.using(queue_name="a").enqueue().id) for _ in range(3)]

    done, jobs = Job.objects.take_turn("w1", [(ended.id, 1, None), (new[0], 1, None)], ["a"], 2)

    assert (done, [job.id for job in jobs]) == (1, new[:2])
    assert [row(pk).state for pk in (ended.id, *new)] == ["succeeded", "running", "running", "ready"]


# Without a lease


@pytest.mark.parametrize("queues", [["a"], QUEUES], ids=str)
def test_a_turn_without_a_lease_claims_nothing_and_its_successes_count_when_they_are_written_again(
    queues: list[str],
) -> None:
    ended = claimed(queue_name="a")
    ready = [int(tasks.noop.using(queue_name=name).enqueue().id) for name in QUEUES * 2]
    before = [row(pk).state for pk in ready]
    end_lease()

    with pytest.raises(LeaseLost):
        Job.objects.take_turn("w1", [(ended.id, 1, None)], queues, 10)
    written = write(outcome(ended, "succeed"))

    assert ([done.job for done in written.done], written.late) == ([ended], [])
    assert [row(pk).state for pk in ready] == before
    assert row(ended.id).state == JobState.SUCCEEDED


@pytest.mark.parametrize("names", [["default"], ["default", "mail"]], ids=str)
def test_an_exchange_counts_what_a_turn_without_a_lease_has_written(names: Sequence[str]) -> None:
    for name in names:
        Queue.objects.declare(name)
    with Hand() as hand:
        ids = enqueue(2)
        hand.turn()
        hand.end(hand.begin(), duration=5.0)
        more = [enqueue(1, queue_name=name)[0] for name in names]
        end_lease()

        held = hand.turn()

        assert held == ids[1:]
        assert hand.exchange.processed == 1
        assert hand.told() == [(ids[0], "succeed")]
        assert [row(pk).state for pk in (*ids, *more)] == ["succeeded", "running", *["ready"] * len(more)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("names", [["default"], ["default", "mail"]], ids=str)
def test_an_exchange_that_is_held_for_lost_ends_whatever_its_turn_has_written(names: Sequence[str]) -> None:
    for name in names:
        Queue.objects.declare(name)
    with Hand() as hand:
        ids = enqueue(2)
        hand.turn()
        hand.end(hand.begin(), duration=5.0)
        end_lease()
        rescue_lost()

        held = hand.turn()

        assert held == ids[1:]
        assert hand.calls == ["lease lost"] * len(hand.calls)
        assert hand.calls
        assert [row(pk).state for pk in ids] == ["ready", "ready"]
        assert hand.told() == []


# What a turn costs


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("queues", "expected"),
    [([], ["WITH"]), (["a"], ["WITH"]), (["a", "nothing here"], ["SELECT", "WITH"]), (QUEUES, ["SELECT", "BEGIN", *["WITH"] * 4, "COMMIT"])],
    ids=str,
)  # fmt: skip
def test_a_turn_takes_a_statement_for_each_queue_that_it_claims_from(queues: list[str], expected: list[str]) -> None:
    ended = claimed(queue_name="a")
    for name in QUEUES:
        tasks.noop.using(queue_name=name).enqueue()

    with CaptureQueriesContext(connection) as captured:
        Job.objects.take_turn("w1", [(ended.id, 1, None)], queues, 10)

    assert [query["sql"].split()[0] for query in captured] == expected


@pytest.mark.django_db(transaction=True)
def test_a_turn_that_claims_nothing_looks_at_no_queue() -> None:
    for name in QUEUES:
        Queue.objects.declare(name)
    with Hand(concurrency=1) as hand:
        tasks.noop.using(queue_name="a").enqueue()
        hand.turn()
        hand.end(hand.begin(), duration=5.0)
        hand.exchange.is_claiming = False

        with CaptureQueriesContext(connection) as captured:
            hand.turn()

    assert [query["sql"].split()[0] for query in captured] == ["WITH"]
