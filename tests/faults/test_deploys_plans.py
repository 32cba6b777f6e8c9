"""A worker whose statements are prepared, and a migration that changes the table under them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from django_jobs.models import Attempt, Queue
from django_jobs.states import JobState
from tests.exchanges import Hand, enqueue, states
from tests.own_sessions import adopt, needs_compiling, prepared
from tests.rivals import Rival
from tests.rows import row

pytestmark = [pytest.mark.django_db(transaction=True), needs_compiling]

RUNNING, SUCCEEDED = JobState.RUNNING, JobState.SUCCEEDED

# What a migration does, and what undoes it.
CHANGES = {
    "a column more": ("ADD COLUMN weight integer NOT NULL DEFAULT 7", "DROP COLUMN weight"),
    "a wider column": ("ALTER task_path TYPE varchar(300)", "ALTER task_path TYPE varchar(255)"),
    "a column of another type": ("ALTER max_attempts TYPE bigint", "ALTER max_attempts TYPE integer"),
}


def alter(change: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE django_jobs_job {change}")


@contextmanager
def changed(what: str) -> Iterator[None]:
    """Have another session change the table, and change it back at the end."""
    change, undo = CHANGES[what]
    with Rival() as migration:
        migration.run(alter, change)
        try:
            yield
        finally:
            migration.run(alter, undo)


@pytest.mark.parametrize("what", CHANGES)
def test_prepared_turns_outlive_a_migration_and_lose_and_double_no_job(what: str) -> None:
    Queue.objects.declare("default")
    with Rival() as thread, Hand() as hand:
        thread.run(adopt, hand)
        ids = enqueue(4)
        thread.run(hand.turn)
        assert any("WITH done" in statement for statement in thread.run(prepared))
        for _ in range(2):
            hand.end(hand.begin(), duration=5.0)

        with changed(what):
            # A turn whose plan is outdated fails as a whole, and the next one does all of it.
            for _ in range(2):
                thread.run(hand.exchange.attempt)

        held, begun = hand.exchange.held, [hand.begin().id, hand.begin().id]
        hand.exchange._thread = None
    assert states(ids) == [SUCCEEDED, SUCCEEDED, RUNNING, RUNNING]
    assert held == begun == ids[2:]
    assert [row(pk).attempt for pk in ids] == [1, 1, 1, 1]
    assert hand.told() == [(pk, "succeed") for pk in ids[:2]]
    assert not Attempt.objects.exists()


@pytest.mark.parametrize("what", CHANGES)
def test_jobs_are_enqueued_on_a_changed_table_in_a_session_that_knew_it_before(what: str) -> None:
    before = enqueue(12)

    with changed(what):
        after = enqueue(2)

    assert states([*before, *after]) == [JobState.READY] * 14
