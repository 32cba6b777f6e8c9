"""Compiled statements and the sessions that they are prepared in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from django_jobs.models import Attempt, Job, Queue
from django_jobs.models import compiled as compiled_module
from django_jobs.models.claim import Kind
from django_jobs.models.compiled import own_session
from django_jobs.models.database import exclusive
from django_jobs.states import JobState

from . import tasks
from .exchanges import Hand, enqueue, states
from .own_sessions import OWN, PLAIN, adopt, needs_compiling, planner_settings, prepared, set_up
from .rivals import Rival
from .rows import claim, row, start_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

RUNNING, SUCCEEDED = JobState.RUNNING, JobState.SUCCEEDED


@pytest.fixture(autouse=True)
def no_pooler_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_module, "_with_pooler", set())


@pytest.fixture
def other() -> Iterator[Rival]:
    """Another thread with connections of its own."""
    with Rival() as rival:
        yield rival


@pytest.fixture
def hand(other: Rival) -> Iterator[Hand]:
    """An exchange whose passes are made in the other thread, in a session of its own."""
    Queue.objects.declare("default")
    with Hand() as made:
        other.run(adopt, made)
        yield made
        made.exchange._thread = None


# Setting up a session


@needs_compiling
def test_the_session_of_an_exchange_is_set_up_for_turns(other: Rival) -> None:
    other.run(set_up)

    assert other.run(planner_settings) == OWN
    assert other.run(lambda: connection.connection.prepare_threshold) == 0


@needs_compiling
def test_the_settings_of_an_exchange_stay_in_its_session(other: Rival) -> None:
    other.run(set_up)

    with Rival() as third:
        assert planner_settings() == third.run(planner_settings) == PLAIN


@needs_compiling
def test_a_session_is_set_up_once(other: Rival) -> None:
    other.run(set_up)
    statements: list[str] = []

    def again() -> None:
        def watch(execute: Any, sql: str, *more: Any) -> Any:
            statements.append(sql)
            return execute(sql, *more)

        with connection.execute_wrapper(watch):
            own_session(connection)

    other.run(again)

    assert statements == []


@needs_compiling
def test_a_session_whose_pooler_the_settings_tell_of_is_left_alone(
    other: Rival, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "DISABLE_SERVER_SIDE_CURSORS", True)

    other.run(set_up)

    assert other.run(planner_settings) == PLAIN
    assert other.run(lambda: connection.connection.prepare_threshold) is None


@needs_compiling
def test_a_session_of_djangos_pool_is_left_alone(other: Rival, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg_pool")
    # The first connection of a thread is made with the settings of the moment.
    monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "pool", {"min_size": 1, "max_size": 1})
    try:
        other.run(set_up)

        assert other.run(planner_settings) == PLAIN
    finally:
        other.run(connections.close_all)
        other.run(connection.close_pool)


@pytest.mark.skipif("connection.features.has_select_for_update_skip_locked", reason="Statements are compiled here.")
def test_where_nothing_can_be_compiled_no_session_is_touched(other: Rival) -> None:
    other.run(set_up)

    assert other.run(lambda: connection.connection) is None


@needs_compiling
def test_turns_in_a_session_that_was_set_up_are_prepared_once(hand: Hand, other: Rival) -> None:
    for _ in range(3):
        ids = enqueue(1)
        assert other.run(hand.turn) == ids
        hand.end(hand.begin(), duration=5.0)
        other.run(hand.turn)

    turns = [text for text in other.run(prepared) if text.lstrip().startswith("WITH done")]
    assert len(turns) == 1
    assert "$1" in turns[0]


@needs_compiling
def test_after_an_error_the_next_session_is_set_up_again(hand: Hand, other: Rival) -> None:
    other.run(hand.turn)
    before = other.run(lambda: connection.connection)

    other.run(hand.exchange.recover)

    ids = enqueue(2)
    assert other.run(hand.turn) == ids
    assert other.run(lambda: connection.connection) is not before
    assert other.run(planner_settings) == OWN


# Sessions that are not one's own


def lose_prepared_statements() -> None:
    """Have the server forget them behind the driver's back, as a pooler does that gives out another session."""
    connection.connection.pgconn.exec_(b"DEALLOCATE ALL")


def prepare_others() -> None:
    """Have the session know other statements by the driver's next names."""
    for number in range(50):
        connection.connection.pgconn.exec_(b"PREPARE _pg3_%d AS SELECT 1" % number)


@needs_compiling
@pytest.mark.parametrize("is_first_turn", [True, False])
def test_a_session_that_is_not_kept_costs_one_turn_and_is_used_without_preparing_then(
    hand: Hand, other: Rival, is_first_turn: bool
) -> None:
    if is_first_turn:
        other.run(set_up)
        other.run(prepare_others)
    else:
        other.run(hand.turn)
        other.run(lose_prepared_statements)
    ids = enqueue(2)

    other.run(hand.exchange.attempt)
    after_the_error = hand.exchange.held
    other.run(hand.turn)

    assert (after_the_error, hand.exchange.held) == ([], ids)
    assert other.run(prepared) == []
    assert other.run(planner_settings) == PLAIN
    assert Attempt.objects.count() == 0


@needs_compiling
def test_outcomes_outlive_the_loss_of_prepared_statements(hand: Hand, other: Rival) -> None:
    ids = enqueue(4)
    other.run(hand.turn)
    hand.end(hand.begin(), duration=5.0)
    hand.end(hand.begin(), duration=5.0)
    other.run(lose_prepared_statements)

    for _ in range(2):
        other.run(hand.exchange.attempt)

    assert hand.exchange.held == ids[2:]
    assert states(ids) == [SUCCEEDED, SUCCEEDED, RUNNING, RUNNING]
    assert hand.told() == [(pk, "succeed") for pk in ids[:2]]


@needs_compiling
def test_a_statement_that_was_lost_inside_a_turn_of_several_queues_loses_no_job(hand: Hand, other: Rival) -> None:
    Queue.objects.declare("mail")
    ids = enqueue(1) + enqueue(1, queue_name="mail")
    other.run(hand.look)
    for _ in range(2):
        hand.end(hand.begin(), duration=5.0)
    other.run(lose_prepared_statements)
    more = enqueue(1) + enqueue(1, queue_name="mail")

    for _ in range(3):
        other.run(hand.exchange.attempt)

    assert states(ids) == [SUCCEEDED, SUCCEEDED]
    assert hand.exchange.held == more
    assert [row(pk).attempt for pk in more] == [1, 1]


# Constants


@needs_compiling
def test_a_column_that_a_migration_has_changed_costs_one_turn_and_is_no_sign_of_a_pooler(other: Rival) -> None:
    def run(sql: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    other.run(set_up)
    # By somebody else: a session forgets its own statements when it alters something.
    with Rival() as migration:
        migration.run(run, "CREATE TABLE changing (value integer)")
        try:
            other.run(compiled_module.execute, connection, "SELECT value FROM changing", {})
            migration.run(run, "ALTER TABLE changing ALTER value TYPE bigint")

            with pytest.raises(OperationalError, match="was not kept"):
                other.run(compiled_module.execute, connection, "SELECT value FROM changing", {})
        finally:
            migration.run(run, "DROP TABLE changing")

    other.run(lambda: connection.close())
    other.run(set_up)
    assert other.run(planner_settings) == OWN


@pytest.mark.parametrize("name", ["it's 100%s", "100%", "%(limit)s", 'say "hello"', "back\\slash", "{finish}", "ü 漢"])
def test_a_queue_may_have_any_name(name: str) -> None:
    start_worker()
    mine = [int(tasks.noop.using(queue_name=name).enqueue().id) for _ in range(2)]
    tasks.noop.using(queue_name="other").enqueue()

    one_queue, two_queues = claim(limit=1, queues=[name]), claim(limit=1, queues=["nothing here", name])

    assert [job.id for job in one_queue + two_queues] == mine
    assert one_queue[0].queue_name == name


@pytest.mark.parametrize("name", ["it's 100%s", "100%", "%(limit)s", 'say "hello"', "back\\slash", "{finish}", "ü 漢"])
@pytest.mark.parametrize("is_without", [True, False])
def test_a_claim_may_be_for_tasks_of_any_name(name: str, is_without: bool) -> None:
    start_worker()
    [of_the_kind, of_another] = enqueue(2)
    Job.objects.filter(pk=of_the_kind).update(task_path=name)

    with exclusive():
        jobs = Job.objects.claim("w1", ["default"], 10, Kind(frozenset({name, "another name's"}), is_without))

    assert [job.id for job in jobs] == [of_another if is_without else of_the_kind]


def test_without_time_zones_the_times_of_a_claimed_job_are_naive(settings: Any) -> None:
    settings.USE_TZ = False
    with Rival() as other:
        # A thread's first connection is made with the settings of the moment.
        other.run(start_worker)
        pk = int(other.run(tasks.noop.enqueue).id)
        other.run(set_up)

        [job] = other.run(claim)
        stored = other.run(row, pk)

    assert job.enqueued_at == stored.enqueued_at
    assert [moment.tzinfo for moment in (job.enqueued_at, job.started_at, job.last_attempted_at)] == [None] * 3
    assert abs(job.started_at - stored.started_at).total_seconds() < 1
