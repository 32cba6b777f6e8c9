"""What must hold when all is over, each as one question to the database; an answer with rows is a violation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection

from .load import Promised
from .tasks import KINDS, MOST_NARROW, NARROW, TICKS

# Seconds from the enqueue to the end, delays, retries and all that faults do to it included.
LONGEST = 120

# An attempt holds its place from its beginning to its end, or to when its worker was known to be lost. One that wakes up
# later, and runs on, does so beside the others: that is what "at least once" means.
_AT_ONCE = """
    WITH ledger_run AS (
        SELECT job_id, attempt, min(at) FILTER (WHERE event = 'begin') AS began, min(at) FILTER (WHERE event = 'end') AS ended
        FROM ledger GROUP BY job_id, attempt
    ), run AS (
        SELECT job.id, ledger_run.attempt, job.{room} AS room, began,
               least(ledger_run.ended, extract(epoch FROM past.ended_at)) AS ended
        FROM ledger_run JOIN django_jobs_job AS job ON job.id = ledger_run.job_id AND job.{room} {has}
             LEFT JOIN django_jobs_attempt AS past ON past.job_id = job.id AND past.number = ledger_run.attempt
    )
    SELECT run.id, count(*) || ' ran at once in ' || run.room
    FROM run JOIN run AS other ON other.room = run.room AND other.began <= run.began AND other.ended > run.began
    WHERE run.ended > run.began GROUP BY run.id, run.attempt, run.room HAVING count(*) > {most}
"""

# Each returns the jobs that break it: id and what is wrong with them.
INVARIANTS = {
    "a job whose enqueue was committed is there": """
        SELECT promised.job_id, promised.kind FROM promised LEFT JOIN django_jobs_job AS job ON job.id = job_id
        WHERE job.id IS NULL
    """,
    "a job whose enqueue was rolled back is not there, and never ran": """
        SELECT undone.job_id, 'ran or is there' FROM undone
        WHERE EXISTS (SELECT 1 FROM ledger WHERE ledger.job_id = undone.job_id)
           OR EXISTS (SELECT 1 FROM django_jobs_job AS job WHERE job.id = undone.job_id)
    """,
    "no job is unfinished": """
        SELECT id, task_path || ' is ' || state || ', attempt ' || attempt FROM django_jobs_job
        WHERE state NOT IN ('succeeded', 'failed', 'cancelled')
    """,
    f"no job was unfinished for longer than {LONGEST} s": f"""
        SELECT id, task_path || ' took ' || (finished_at - enqueued_at) FROM django_jobs_job
        WHERE finished_at - enqueued_at > interval '{LONGEST} seconds'
    """,
    "one attempt begins once": """
        SELECT job_id, 'attempt ' || attempt || ' began ' || count(*) || ' times' FROM ledger
        WHERE event = 'begin' GROUP BY job_id, attempt HAVING count(*) > 1
    """,
    "what has succeeded has run to its end in its last attempt": """
        SELECT id, task_path || ', attempt ' || attempt FROM django_jobs_job AS job
        WHERE state = 'succeeded' AND NOT EXISTS (
            SELECT 1 FROM ledger WHERE job_id = job.id AND ledger.attempt = job.attempt AND event = 'end'
        )
    """,
    "every attempt that ran and was not the last has its reason in the history": """
        SELECT DISTINCT ledger.job_id, 'attempt ' || ledger.attempt || ' of ' || job.attempt
        FROM ledger JOIN django_jobs_job AS job ON job.id = ledger.job_id
        WHERE ledger.attempt < job.attempt AND NOT EXISTS (
            SELECT 1 FROM django_jobs_attempt AS past WHERE past.job_id = job.id AND past.number = ledger.attempt
        )
    """,
    "an attempt that ran to its end runs again only if its worker was lost or gave it back": """
        SELECT DISTINCT ledger.job_id, past.outcome || ' after the end of attempt ' || ledger.attempt
        FROM ledger JOIN django_jobs_attempt AS past ON past.job_id = ledger.job_id AND past.number = ledger.attempt
        WHERE event = 'end' AND past.outcome NOT IN ('crashed', 'interrupted', 'cancelled')
          AND NOT (past.outcome = 'failed' AND past.exception_class LIKE 'django.db.utils.%%')
    """,
    "no attempt has a number above the one of its job": """
        SELECT DISTINCT ledger.job_id, 'attempt ' || ledger.attempt || ' of ' || job.attempt
        FROM ledger JOIN django_jobs_job AS job ON job.id = ledger.job_id WHERE ledger.attempt > job.attempt
    """,
    "every job ended as its kind must": """
        SELECT job.id, kind.name || ' ended as ' || job.state FROM django_jobs_job AS job
        JOIN kind ON kind.name = job.meta ->> 'kind'
        WHERE job.state <> kind.ends_as
          AND NOT (job.state = 'cancelled' AND job.id IN (SELECT job_id FROM cancelled))
          AND job.state IN ('succeeded', 'failed', 'cancelled')
    """,
    "nothing ran before its time": """
        SELECT ledger.job_id, 'began ' || extract(epoch FROM job.run_after) - ledger.at || ' s early'
        FROM ledger JOIN django_jobs_job AS job ON job.id = ledger.job_id
        WHERE job.meta ->> 'kind' = 'scheduled' AND ledger.event = 'begin' AND ledger.attempt = 1
          AND job.run_after IS NOT NULL AND job.attempt = 1 AND ledger.at < extract(epoch FROM job.run_after) - 0.001
    """,
    "of a concurrency key no more ran at once than its limit says": _AT_ONCE.format(
        room="concurrency_key", has="<> ''", most="(SELECT max(concurrency_limit) FROM django_jobs_job)"
    ),
    "of a queue no more ran at once than its max_running says": _AT_ONCE.format(
        room="queue_name", has=f"= '{NARROW}'", most=MOST_NARROW
    ),
    "each moment of a schedule has its job": f"""
        SELECT 0, 'none for ' || moment FROM django_jobs_schedule AS schedule CROSS JOIN LATERAL (
            SELECT min(scheduled_for) AS first, max(scheduled_for) AS last FROM django_jobs_job WHERE schedule_id = schedule.id
        ) AS seen CROSS JOIN LATERAL generate_series(seen.first, seen.last, interval '1 second') AS moment
        WHERE schedule.name = '{TICKS}' AND NOT EXISTS (
            SELECT 1 FROM django_jobs_job WHERE schedule_id = schedule.id AND scheduled_for = moment
        )
    """,
    "a schedule goes on as long as jobs come": f"""
        SELECT 0, 'fired for the last time ' || max(job.enqueued_at) - schedule.last_run_at || ' before the last enqueue'
        FROM django_jobs_job AS job CROSS JOIN django_jobs_schedule AS schedule
        WHERE schedule.name = '{TICKS}' AND job.schedule_id IS NULL GROUP BY schedule.id
        HAVING max(job.enqueued_at) - schedule.last_run_at > interval '{LONGEST} seconds'
    """,
    "every atomic job that succeeded has left its row, once, and no other has": """
        SELECT coalesce(job.id, effect.job_id), count(effect.job_id) || ' rows, it is ' || coalesce(max(job.state), 'gone')
        FROM (SELECT * FROM django_jobs_job WHERE task_path = 'benchmarks.soaking.tasks.count_once') AS job
             FULL JOIN effect ON effect.job_id = job.id
        GROUP BY job.id, effect.job_id
        HAVING count(effect.job_id) <> CASE WHEN max(job.state) = 'succeeded' THEN 1 ELSE 0 END
    """,
    "the counter is the number of those rows": """
        SELECT 0, 'counted ' || value || ', rows ' || (SELECT count(*) FROM effect) FROM counter
        WHERE value <> (SELECT count(*) FROM effect)
    """,
    "an atomic job that succeeded has one child, and no other has any": """
        SELECT parent.id, parent.state || ' with ' || count(child.id) || ' children' FROM django_jobs_job AS parent
        LEFT JOIN django_jobs_job AS child
               ON child.task_path = 'benchmarks.soaking.tasks.child' AND (child.args ->> 0)::bigint = parent.id
        WHERE parent.task_path = 'benchmarks.soaking.tasks.have_a_child' GROUP BY parent.id, parent.state
        HAVING count(child.id) <> CASE WHEN parent.state = 'succeeded' THEN 1 ELSE 0 END
    """,
}


def violations(promised: Promised) -> dict[str, list[tuple[Any, ...]]]:
    """Return what breaks each invariant, for those that something breaks."""
    with connection.cursor() as cursor:
        for name, ids in (("undone", promised.undone), ("cancelled", promised.cancelled)):
            cursor.execute(f"CREATE TEMPORARY TABLE {name} AS SELECT unnest(%s::bigint[]) AS job_id", [sorted(ids)])
        _table(cursor, "promised (job_id bigint, kind text)", list(promised.kinds.items()))
        _table(cursor, "kind (name text, ends_as text)", [(name, str(kind.ends_as)) for name, kind in KINDS.items()])
        found = {}
        for name, question in INVARIANTS.items():
            cursor.execute(question, [])
            if rows := cursor.fetchall():
                found[name] = rows
        return found


def _table(cursor: Any, definition: str, rows: Sequence[tuple[Any, ...]]) -> None:
    cursor.execute(f"CREATE TEMPORARY TABLE {definition}")
    with cursor.cursor.copy(f"COPY {definition.partition(' ')[0]} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
