"""Promise 10: no request, page or command reads the whole jobs table.

Counted, not guessed from plans: how many rows of jobs PostgreSQL reads for each statement, and how many steps SQLite takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from django_jobs.admin import paging
from django_jobs.models import Job, Limit, Queue, Schedule, backlog, window
from django_jobs.models.admission import give_out
from django_jobs.models.backlog import backlogs, undeclared_ready_queues
from django_jobs.models.completion import give_back_unknown
from django_jobs.models.database import from_now
from django_jobs.worker.duties import bring_up_jobs, own_duties
from tests import tasks
from tests.rows import HOUR, WORKER, claim, claimed, start_worker
from tests.test_admin_limits import LIMITS
from tests.visitor import JOBS, QUEUES, WORKERS, superuser

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

ROWS = 50_000
# What is listed, counted and searched at the most, made small so that it is far from all.
CAP = 500
MOST_READ = ROWS // 5

_COLUMNS = """(task_path, queue_name, priority, args, kwargs, state, attempt, max_attempts, worker_id, meta, backend,
    enqueued_at, run_after, finished_at, concurrency_key, concurrency_limit, schedule_id, scheduled_for)"""
# Two thirds of the jobs are those of two schedules, each of a moment of its own.
_MOMENT = {
    "postgresql": "CURRENT_TIMESTAMP - number * INTERVAL '1 s'",
    "sqlite": "DATETIME(CURRENT_TIMESTAMP, '-' || number || ' seconds')",
}[connection.vendor]
_MANY = f"""INSERT INTO django_jobs_job {_COLUMNS}
    WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {ROWS})
    SELECT 'shop.tasks.import_order', 'default', 0, '[]', '{{}}',
    CASE number %% 10 WHEN 0 THEN 'scheduled' WHEN 1 THEN 'waiting' WHEN 2 THEN 'failed' WHEN 3 THEN 'blocked'
        WHEN 4 THEN 'blocked' WHEN 5 THEN 'blocked' ELSE 'succeeded' END,
    1, 3, 'gone', '{{}}', 'default', CURRENT_TIMESTAMP, '2100-01-01',
    CASE WHEN number %% 10 = 2 OR number %% 10 > 5 THEN CURRENT_TIMESTAMP END,
    CASE WHEN number %% 10 IN (3, 4, 5) THEN 'full' ELSE '' END, CASE WHEN number %% 10 IN (3, 4, 5) THEN 1 END,
    CASE number %% 3 WHEN 0 THEN %s WHEN 1 THEN %s END, {_MOMENT}
    FROM numbers"""


class Reads:
    """The statements that read more rows of jobs than they should, and how many."""

    def __init__(self) -> None:
        self.statements = 0
        self.too_many: dict[str, int] = {}

    def take(self, sql: str, read: int) -> None:
        self.statements += 1
        if read > MOST_READ:
            self.too_many[sql] = read


def rows_read(plan: dict[str, Any]) -> int:
    """Return how many rows of the jobs table the nodes of a plan have read."""
    read = sum(rows_read(child) for child in plan.get("Plans", ()))
    if plan.get("Relation Name") == Job._meta.db_table and "Scan" in plan["Node Type"]:
        passed = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        read += int(passed * plan["Actual Loops"])
    return read


@contextmanager
def counted() -> Iterator[Reads]:
    """Count what each statement reads."""
    reads = Reads()

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if Job._meta.db_table not in sql or not re.match(r"\s*(SELECT|UPDATE|DELETE|WITH|INSERT)", sql):
            return execute(sql, params, many, context)
        # What it would change is rolled back before it is really done.
        with connection.connection.cursor() as cursor:
            cursor.execute("SAVEPOINT explained")
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
            plan = cursor.fetchone()[0]
            cursor.execute("ROLLBACK TO SAVEPOINT explained")
        parsed = json.loads(plan) if isinstance(plan, str) else plan
        reads.take(sql, rows_read(parsed[0]["Plan"]))
        return execute(sql, params, many, context)

    def step(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        # SQLite takes some ten steps for a row that it passes over.
        connection.connection.set_progress_handler(count, 10)
        try:
            answer = execute(sql, params, many, context)
        finally:
            connection.connection.set_progress_handler(None, 0)
        if Job._meta.db_table in sql:
            reads.take(sql, steps)
        return answer

    connection.ensure_connection()
    with connection.execute_wrapper(explain if connection.vendor == "postgresql" else step):
        yield reads


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of jobs that are finished or have to wait, and a few that are ready or run."""
    monkeypatch.setattr(paging, "MOST_LISTED", CAP)
    monkeypatch.setattr(backlog, "MOST_COUNTED", CAP)
    monkeypatch.setattr(window, "MOST_SEARCHED", CAP)
    start_worker()
    for overlap in ("skip", "replace"):
        Schedule.objects.declare(overlap, task=tasks.noop, cron="0 0 1 1 *", overlap=overlap)
    Schedule.objects.update(next_run_at=from_now(-HOUR))
    with connection.cursor() as cursor:
        cursor.execute(_MANY, [schedule.pk for schedule in Schedule.objects.all()])
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE django_jobs_job")
    for _ in range(3):
        claimed()
        tasks.noop.enqueue()
    tasks.noop.using(run_after=HOUR).enqueue()
    Queue.objects.declare("default", keep_failed=HOUR, raise_after=HOUR)
    Limit.objects.create(key="full", limit=1, override=0)
    tasks.noop.using(concurrency_key="free").enqueue()


def look_at(address: str) -> Callable[[], Any]:
    return lambda: superuser().get(address)


DO: dict[str, Callable[[], Any]] = {
    **{duty.name: duty.do for duty in own_duties(30.0)},
    "stage": lambda: Job.objects.stage_due(),
    "next due": lambda: Job.objects.next_due_in(),
    "bring up": lambda: bring_up_jobs(["*"]),
    "claim": lambda: claim(),
    "claim from several queues": lambda: claim(queues=["default", "mail"]),
    "claim from an empty queue": lambda: claim(queues=["nothing here"]),
    "reconcile": lambda: give_back_unknown(WORKER, []),
    "enqueue": lambda: tasks.noop.enqueue(),
    "enqueue a unique job": lambda: tasks.noop.using(unique_key="one").enqueue(),
    "enqueue a job of a key": lambda: tasks.noop.using(concurrency_key="free").enqueue(),
    "enqueue a job of a full key": lambda: tasks.noop.using(concurrency_key="full").enqueue(),
    "end a job of a key": lambda: give_out(Job.objects.all(), ["full", "free"]),
    "override a limit": lambda: Limit.objects.override("full", 1),
    "pause": lambda: Queue.objects.pause("default"),
    "pause and resume": lambda: (Queue.objects.pause("default"), Queue.objects.resume("default")),
    "the list of limits": look_at(LIMITS),
    "blocked jobs": look_at(f"{JOBS}?state__exact=blocked"),
    "backlogs": lambda: backlogs(list(Queue.objects.all())),
    "undeclared queues": undeclared_ready_queues,
    "prunejobs": lambda: call_command("prunejobs", "--older-than", "1h", verbosity=0),
    "prunejobs of a queue": lambda: call_command("prunejobs", "--older-than", "1h", "--queue", "default"),
    "the list of jobs": look_at(JOBS),
    "running jobs": look_at(f"{JOBS}?state__exact=running"),
    "finished jobs": look_at(f"{JOBS}?state__exact=succeeded"),
    "jobs that finished lately": look_at(f"{JOBS}?finished=hour"),
    "a job": lambda: superuser().get(f"{JOBS}{Job.objects.order_by('-pk')[0].pk}/change/"),
    "a job that is looked for by its id": lambda: superuser().get(JOBS, {"q": str(Job.objects.order_by("-pk")[0].pk)}),
    "the list of queues": look_at(QUEUES),
    "the list of workers": look_at(WORKERS),
}


WITHOUT_JOBS = {"raise priorities", "forget workers", "the list of workers"}

# What has no index, because each would cost every claim.
WITHOUT_INDEX: dict[str, Callable[[], Any]] = {
    "jobs of a queue": look_at(f"{JOBS}?queue_name=few"),
    "jobs of a task": look_at(f"{JOBS}?task_path=few"),
    "jobs of a worker": look_at(f"{JOBS}?worker_id=few"),
    "jobs in a state that few are in": look_at(f"{JOBS}?state__exact=cancelled"),
    "jobs that are looked for by a key": look_at(f"{JOBS}?q=few"),
}


def read_too_many(do: Mapping[str, Callable[[], Any]]) -> dict[str, dict[str, int]]:
    """Do each, undo it, and return the statements that read too many rows."""
    too_many: dict[str, dict[str, int]] = {}
    for what, call in do.items():
        with transaction.atomic(), counted() as reads:
            call()
            transaction.set_rollback(True)
        assert reads.statements or what in WITHOUT_JOBS, what
        if reads.too_many:
            too_many[what] = reads.too_many
    return too_many


def test_nothing_reads_the_whole_jobs_table(many: None) -> None:
    assert read_too_many(DO) == {}


def test_a_filter_or_a_search_that_finds_few_jobs_reads_not_the_whole_jobs_table(many: None) -> None:
    assert read_too_many(WITHOUT_INDEX) == {}


def test_a_filter_reads_not_the_whole_jobs_table_where_all_jobs_are_ready(many: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_jobs_job SET state = 'ready', finished_at = NULL")
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE django_jobs_job")

    ready = {"queue_name": "default", "task_path": "few", "q": "few"}
    looks = {name: look_at(f"{JOBS}?state__exact=ready&{name}={value}") for name, value in ready.items()}

    assert read_too_many(looks) == {}


def test_a_statement_that_reads_the_whole_table_is_seen(many: None) -> None:
    assert len(read_too_many({"": lambda: list(Job.objects.filter(backend="other"))})) == 1
