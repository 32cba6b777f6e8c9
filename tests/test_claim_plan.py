"""How PostgreSQL executes a turn on a table with 100,000 ready and 1,000,000 finished jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.utils import OperationalError

from django_jobs.models import Job, Queue, Result, Worker
from django_jobs.models.claim import ANY, Kind
from django_jobs.models.compiled import execute
from django_jobs.models.turn import turn_of

from .own_sessions import needs_compiling, set_up
from .rivals import Rival
from .rows import WORKER, start_worker

pytestmark = [pytest.mark.django_db, pytest.mark.slow, needs_compiling]

QUEUES = ["default", "mail", "nothing here"]
PATHS = frozenset({"tests.tasks.add_async"})
KINDS = {
    "any": ANY,
    "async": Kind(PATHS, is_without=False),
    "not async": Kind(PATHS),
    "some priorities": Kind(lowest=0, highest=1),
}

_COLUMNS = """(task_path, queue_name, priority, args, kwargs, state, attempt, max_attempts, worker_id, meta, backend,
    started_at, last_attempted_at, finished_at)"""
_FINISHED = f"""INSERT INTO django_jobs_job {_COLUMNS}
    SELECT 'tests.tasks.noop', 'default', 0, '[]', '{{}}', 'succeeded', 1, 3, 'w' || number % 7, '{{}}', 'default',
    now(), now(), now() FROM generate_series(1, 1000000) AS number"""
_READY = f"""INSERT INTO django_jobs_job {_COLUMNS}
    SELECT CASE number % 10 WHEN 0 THEN 'tests.tasks.add_async' ELSE 'tests.tasks.noop' END,
    CASE number % 4 WHEN 0 THEN 'mail' ELSE 'default' END, number % 3, '[]', '{{}}', 'ready', 0, 3, '', '{{}}',
    'default', NULL, NULL, NULL FROM generate_series(1, 100000) AS number"""
_VALUES: dict[str, Any] = {
    "ids": "{1,2,3}",
    "attempts": "{1,1,1}",
    "worker_id": WORKER,
    "queue_name": "default",
    "limit": 100,
    "results": "{}",
    "longest_wait": 3600.0,
    "priority": 0,
    "mark": 1,
    "queue_names": QUEUES,
    "most": [100] * len(QUEUES),
}


class Tables:
    """Large tables, and a session in which turns were prepared while they were empty."""

    def __init__(self, session: Rival) -> None:
        self.session = session
        session.run(start_worker)
        session.run(set_up)
        session.run(prepare_turns)
        session.run(run_sql, _FINISHED)
        session.run(run_sql, _READY)
        self.before_analyze = session.run(plans_of_prepared)
        session.run(run_sql, "ANALYZE django_jobs_job, django_jobs_queue, django_jobs_worker")
        session.run(prepare_turns)
        self.after_analyze = session.run(plans_of_prepared)


@pytest.fixture(scope="module")
def tables(django_db_setup: None, django_db_blocker: Any) -> Iterator[Tables]:
    with django_db_blocker.unblock():
        if not connection.features.has_select_for_update_skip_locked:
            pytest.skip("Statements cannot be compiled here: the querysets are executed.")
        with Rival() as session:
            names = ", ".join(model._meta.db_table for model in (Job, Queue, Worker, Result))
            try:
                yield Tables(session)
            finally:
                session.run(run_sql, f"TRUNCATE {names} CASCADE")


def run_sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def prepare_turns() -> None:
    """Have this session prepare all statements of turns, which claim nothing."""
    for kind in KINDS.values():
        Job.objects.take_turn(WORKER, [], ["nothing here"], 1, kind)
        Job.objects.take_turn(WORKER, [], ["nothing here", "nor here"], 1, kind)
        turn_of(Job.objects.all(), kind)._take_one(WORKER, [], "nothing here", 1, (0, 1))


def statements() -> dict[str, str]:
    """Return the compiled statements by what they are."""
    turns = {name: turn_of(Job.objects.all(), kind) for name, kind in KINDS.items()}
    texts = {f"turn, {name}": turn._turn for name, turn in turns.items()}
    texts |= {f"marked turn, {name}": turn._marked_turn for name, turn in turns.items()}
    return texts | {f"look, {name}": turn._look for name, turn in turns.items()}


def plans_of_prepared() -> dict[str, list[str]]:
    """Return the plans that this session keeps for its prepared statements."""
    plans: dict[str, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement, name FROM pg_prepared_statements")
        prepared = {_flat(text): name for text, name in cursor.fetchall()}
        for what, text in statements().items():
            names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
            numbered = text
            for number, name in enumerate(names, start=1):
                numbered = numbered.replace(f"%({name})s", f"${number}")
            statement = prepared[_flat(numbered.replace("%%", "%"))]
            holes = ", ".join(["%s"] * len(names))
            cursor.execute(f'EXPLAIN EXECUTE "{statement}" ({holes})', [_VALUES[name] for name in names])
            plans[what] = [line for (line,) in cursor.fetchall()]
    return plans


def _flat(text: str) -> str:
    return " ".join(text.split())


def plans_unprepared() -> dict[str, list[str]]:
    """Return the plans that this session makes for the statements with these values."""
    return {
        what: [line for (line,) in execute(connection, f"EXPLAIN {text}", _VALUES)]
        for what, text in statements().items()
    }


def is_good(what: str, plan: list[str]) -> bool:
    """Say whether a plan reads the jobs in the order of the ready index, and writes them by their ids."""
    text = "\n".join(plan)
    uses = {"django_jobs_ready"} if what.startswith("look") else {"django_jobs_ready", "django_jobs_job_pkey"}
    used = set(re.findall(r"Index (?:Only )?Scan using (\w+) on django_jobs_job", text))
    # What comes first of all queues is found by sorting the few that come first of each: those below the last limit.
    of_each_queue = text.rpartition("Limit ")[2] if what.startswith("look") else text
    sorts = of_each_queue.count("Sort Key")
    return used == uses and sorts == 0 and "Seq Scan on django_jobs_job" not in text and "Bitmap" not in text


@pytest.mark.parametrize("when", ["before_analyze", "after_analyze"])
def test_a_turn_that_was_prepared_on_an_empty_table_is_good_for_a_large_one(tables: Tables, when: str) -> None:
    plans: dict[str, list[str]] = getattr(tables, when)

    bad = {what: plan for what, plan in plans.items() if not is_good(what, plan)}

    assert len(plans) == 3 * len(KINDS)
    assert bad == {}


def test_a_turn_in_any_session_is_planned_as_well_once_the_table_has_been_analyzed(tables: Tables) -> None:
    plans = plans_unprepared()

    bad = {what: plan for what, plan in plans.items() if not is_good(what, plan)}

    assert bad == {}


def test_a_turn_reads_as_much_as_it_claims(tables: Tables) -> None:
    turn = statements()["turn, any"]

    [(answer,)] = execute(connection, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {turn}", _VALUES)

    [explained] = json.loads(answer) if isinstance(answer, str) else answer
    read = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
    assert Job.objects.held_by(WORKER).count() == 100
    # About ten blocks for each index entry that a claimed row leaves and enters.
    assert read < 50 * 100


def test_a_backlog_does_not_keep_claims_of_the_other_kind_from_ending(tables: Tables) -> None:
    run_sql("SET LOCAL statement_timeout = '5s'")

    try:
        jobs = Job.objects.take_turn(WORKER, [], ["default", "mail"], 50, KINDS["async"])[1]
    except OperationalError as error:
        pytest.fail(str(error))

    assert len(jobs) == 50
    assert {job.task_path for job in jobs} == PATHS
