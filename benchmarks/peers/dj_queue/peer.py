"""dj_queue: Solid Queue for Django; a job moves between five tables."""

from __future__ import annotations

from benchmarks.peers.peer import Peer, Variant

DJ_QUEUE = Peer(
    name="dj_queue",
    variants=(
        Variant(
            "default",
            "dj_queue in fork mode, one worker with 10 threads, CONN_MAX_AGE None",
            700,
            ("-m", "django", "dj_queue", "--verbosity", "0"),
        ),
    ),
    unfinished="""
        SELECT EXISTS (SELECT FROM dj_queue_ready_executions) OR EXISTS (SELECT FROM dj_queue_claimed_executions)
    """,
    seeds={
        "finished": """
            INSERT INTO dj_queue_jobs (id, task_path, queue_name, priority, payload, backend_alias, finished_at,
                created_at, updated_at)
            SELECT gen_random_uuid(), 'benchmarks.peers.framework_tasks.noop', 'default', 0,
                '{{"args": [], "kwargs": {{}}}}', 'default', now(), now(), now()
            FROM generate_series(1, {count})
        """,
        "pending": """
            WITH made AS (
                INSERT INTO dj_queue_jobs (id, task_path, queue_name, priority, payload, backend_alias,
                    created_at, updated_at)
                SELECT gen_random_uuid(), 'benchmarks.peers.framework_tasks.noop', 'default', 0,
                    '{{"args": [], "kwargs": {{}}}}', 'default', now(), now()
                FROM generate_series(1, {count})
                RETURNING id
            )
            INSERT INTO dj_queue_ready_executions (queue_name, priority, created_at, job_id, backend_alias)
            SELECT 'default', 0, now(), id, 'default' FROM made
        """,
        "scheduled": """
            WITH made AS (
                INSERT INTO dj_queue_jobs (id, task_path, queue_name, priority, payload, backend_alias, scheduled_at,
                    created_at, updated_at)
                SELECT gen_random_uuid(), 'benchmarks.peers.framework_tasks.noop', 'default', 0,
                    '{{"args": [], "kwargs": {{}}}}', 'default', now() + interval '1 day', now(), now()
                FROM generate_series(1, {count})
                RETURNING id, scheduled_at
            )
            INSERT INTO dj_queue_scheduled_executions (queue_name, priority, scheduled_at, created_at, job_id, backend_alias)
            SELECT 'default', 0, scheduled_at, now(), id, 'default' FROM made
        """,
    },
    environment={"DJANGO_SETTINGS_MODULE": "benchmarks.peers.dj_queue.settings"},
    least_python=(3, 12),
    is_django=True,
)
