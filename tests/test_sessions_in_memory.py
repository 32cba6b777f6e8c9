"""A SQLite database in memory lives as long as its connection: it is put right, and never closed."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections, transaction

from django_jobs.worker.sessions import Sessions

ALIAS = "memory"


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any) -> Any:
    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": {}}
    monkeypatch.setitem(connections.settings, ALIAS, connections.settings["default"] | engine)
    with django_db_blocker.unblock():
        execute("CREATE TABLE kept (id int)")
        yield
        connections[ALIAS].connection.close()
        del connections[ALIAS]


def execute(statement: str) -> Any:
    with connections[ALIAS].cursor() as cursor:
        return cursor.execute(statement).fetchone()


@pytest.mark.usefixtures("database")
def test_a_transaction_that_is_left_open_is_rolled_back_and_the_tables_stay() -> None:
    sessions = Sessions()

    with sessions.clean():
        transaction.atomic(ALIAS).__enter__()
        execute("INSERT INTO kept VALUES (1)")
    with sessions.clean(), transaction.atomic(ALIAS):
        found = execute("SELECT count(*) FROM kept")

    assert found == (0,)


@pytest.mark.usefixtures("database")
def test_autocommit_that_is_left_switched_off_is_switched_on_and_the_tables_stay() -> None:
    sessions = Sessions()

    with sessions.clean():
        transaction.set_autocommit(False, ALIAS)
        execute("INSERT INTO kept VALUES (1)")
    with sessions.clean(), transaction.atomic(ALIAS):
        found = execute("SELECT count(*) FROM kept")

    assert found == (0,)
