"""The rule for our migrations: the older release runs on the newer tables. See docs/deploys.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader

from tests.test_house import modules, named

# Migrations that take something away, or that only their author can judge: in which release the code stopped using it.
REVIEWED: dict[str, str] = {"0001_initial": "There was nothing before."}

HARMLESS = (
    migrations.CreateModel,
    migrations.AddIndex,
    migrations.RemoveIndex,
    migrations.RenameIndex,
    migrations.AlterModelOptions,
    migrations.AlterModelManagers,
)


def breaks_older_code(operations: list[Any]) -> Iterator[str]:
    """Yield what code that does not know of these operations could not live with."""
    for operation in operations:
        match operation:
            case migrations.SeparateDatabaseAndState():
                yield from breaks_older_code(operation.database_operations)
            case migrations.AddField(field=field):
                if not (field.null or field.has_db_default()):
                    yield f"{operation.model_name}.{operation.name} is neither nullable nor has it a db_default"
            case _ if not isinstance(operation, HARMLESS):
                yield operation.describe()


def test_the_older_release_runs_on_the_tables_that_our_migrations_make() -> None:
    ours = MigrationLoader(None).disk_migrations
    broken = {
        name: list(breaks_older_code(migration.operations))
        for (app, name), migration in ours.items()
        if app == "django_jobs" and name not in REVIEWED
    }

    assert ("django_jobs", "0001_initial") in ours
    assert {name: problems for name, problems in broken.items() if problems} == {}


@pytest.mark.parametrize(
    ("operation", "is_refused"),
    [
        (migrations.AddField("job", "weight", models.IntegerField(db_default=1)), False),
        (migrations.AddField("job", "weight", models.IntegerField(null=True)), False),
        (migrations.AddField("job", "weight", models.IntegerField(default=1)), True),
        (migrations.AddIndex("job", models.Index(fields=["state"], name="a")), False),
        (migrations.RemoveField("job", "meta"), True),
        (migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField("job", "meta")]), False),
        (migrations.SeparateDatabaseAndState([migrations.RemoveField("job", "meta")]), True),
        (migrations.AlterField("job", "priority", models.IntegerField()), True),
        (migrations.RenameField("job", "meta", "notes"), True),
        (migrations.DeleteModel("Result"), True),
        (migrations.AddConstraint("job", models.UniqueConstraint(fields=["meta"], name="a")), True),
        (migrations.RunSQL("SELECT 1"), True),
    ],
)
def test_a_migration_that_takes_something_away_is_refused(operation: Any, is_refused: bool) -> None:
    assert bool(list(breaks_older_code([operation]))) == is_refused


# Our SQL names its columns


def columns_left_out(source: str) -> list[str]:
    """Return the pieces of SQL that count on the columns that a table has."""
    everything = r"SELECT\s+\*|RETURNING\s+\*"
    unnamed = r"INSERT\s+INTO\s+\S+\s+(?:VALUES|SELECT|DEFAULT)"
    return re.findall(f"{everything}|{unnamed}", source)


def test_no_statement_counts_on_the_columns_that_a_table_has() -> None:
    found = {named(path): columns_left_out(path.read_text()) for path in modules("django_jobs")}

    assert {name: pieces for name, pieces in found.items() if pieces} == {}


@pytest.mark.parametrize(
    ("sql", "is_refused"),
    [
        ("SELECT * FROM job", True),
        ("INSERT INTO {quote(job)} VALUES (1)", True),
        ("UPDATE job SET a = 1 RETURNING *", True),
        ("INSERT INTO {job} (id) VALUES (1)", False),
        ("SELECT count(*) FROM job", False),
    ],
)
def test_sql_that_counts_on_the_columns_of_a_table_is_seen(sql: str, is_refused: bool) -> None:
    assert bool(columns_left_out(sql)) == is_refused
