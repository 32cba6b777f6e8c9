"""django-ox: one job per statement, claimed by the main thread, run in a pool of threads."""

from __future__ import annotations

from benchmarks.peers.peer import Peer, Variant

DJANGO_OX = Peer(
    name="django_ox",
    variants=(
        Variant(
            "default",
            "ox_worker --concurrency 10, CONN_MAX_AGE None",
            500,
            ("-m", "django", "ox_worker", "--concurrency", "10", "--verbosity", "0"),
        ),
    ),
    unfinished="""
        SELECT EXISTS (SELECT FROM django_ox_oxtask WHERE status = 'READY')
            OR EXISTS (SELECT FROM django_ox_oxtask WHERE status = 'RUNNING')
    """,
    seeds={
        "finished": """
            INSERT INTO django_ox_oxtask (id, task_path, args, kwargs, queue_name, priority, takes_context, backend_name,
                status, attempts, max_attempts, errors, worker_ids, enqueued_at, started_at, last_attempted_at,
                finished_at, lease_epoch)
            SELECT gen_random_uuid(), 'benchmarks.peers.framework_tasks.noop', '[]', '{{}}', 'default', 0, false,
                'default', 'SUCCESSFUL', 1, 3, '[]', '["seed"]', now(), now(), now(), now(), 1
            FROM generate_series(1, {count})
        """,
        "pending": """
            INSERT INTO django_ox_oxtask (id, task_path, args, kwargs, queue_name, priority, takes_context, backend_name,
                status, attempts, max_attempts, errors, worker_ids, enqueued_at, lease_epoch)
            SELECT gen_random_uuid(), 'benchmarks.peers.framework_tasks.noop', '[]', '{{}}', 'default', 0, false,
                'default', 'READY', 0, 3, '[]', '[]', clock_timestamp(), 0
            FROM generate_series(1, {count})
        """,
        "scheduled": """
            INSERT INTO django_ox_oxtask (id, task_path, args, kwargs, queue_name, priority, takes_context, backend_name,
                status, run_after, attempts, max_attempts, errors, worker_ids, enqueued_at, lease_epoch)
            SELECT gen_random_uuid(), 'benchmarks.peers.framework_tasks.noop', '[]', '{{}}', 'default', 0, false,
                'default', 'READY', now() + interval '1 day', 0, 3, '[]', '[]', clock_timestamp(), 0
            FROM generate_series(1, {count})
        """,
    },
    environment={"DJANGO_SETTINGS_MODULE": "benchmarks.peers.django_ox.settings"},
    least_python=(3, 12),
    is_django=True,
    two_processes=("--processes", "2"),
)
