"""Errors of the database's own, at the moment and at the rows that a test names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

IS_POSTGRESQL = connection.features.has_select_for_update

_POSTGRESQL = """
CREATE FUNCTION refuse_it() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'as the test wants it' USING ERRCODE = '{state}'; END$$;
CREATE TRIGGER refuse_it BEFORE UPDATE ON django_jobs_job FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse_it()
"""
_SQLITE = """
CREATE TRIGGER refuse_it BEFORE UPDATE ON django_jobs_job WHEN {condition}
BEGIN SELECT RAISE(ABORT, 'as the test wants it'); END
"""


@contextmanager
def refused(condition: str, state: str = "23514") -> Iterator[None]:
    """Let the database refuse every update of a job for which the condition (of ``OLD`` and ``NEW``) holds.

    ``state`` is the SQLSTATE; SQLite has none and speaks of a constraint.
    """
    _execute((_POSTGRESQL if IS_POSTGRESQL else _SQLITE).format(condition=condition, state=state))
    try:
        yield
    finally:
        _execute("DROP FUNCTION refuse_it() CASCADE" if IS_POSTGRESQL else "DROP TRIGGER refuse_it")


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
