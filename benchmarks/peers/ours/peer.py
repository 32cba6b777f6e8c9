"""django_jobs."""

from __future__ import annotations

from benchmarks.peers.peer import OF_WORKERS, Peer, Variant

_WORKER = ("-m", "django", "runworker", "--verbosity", "0")

OURS = Peer(
    name="ours",
    variants=(
        Variant("default", "runworker: 10 threads, claims ahead up to 50 ms of work", 20_000, _WORKER),
        Variant(
            "strict",
            "--claim-ahead 0: never more than the free slots",
            4_000,
            (*_WORKER, "--claim-ahead", "0"),
            measures=OF_WORKERS,
        ),
        Variant(
            "limits",
            "a queue with max_running, rate_limit and concurrency that are never reached",
            20_000,
            _WORKER,
            environment={"BENCH_LIMITS": "1"},
            measures=("drain", "drain2"),
        ),
        Variant(
            "keys",
            "a concurrency key for each job, so that none waits",
            20_000,
            _WORKER,
            environment={"BENCH_KEYS": "1"},
            measures=("drain", "drain2", "enqueue", "bulk"),
        ),
        Variant(
            "no-notify",
            "NOTIFY off: nothing is sent, workers poll",
            20_000,
            _WORKER,
            environment={"BENCH_NOTIFY": "0"},
            measures=("enqueue", "producers"),
        ),
    ),
    unfinished="""
        SELECT EXISTS (SELECT FROM django_jobs_job WHERE state = 'ready')
            OR EXISTS (SELECT FROM django_jobs_job WHERE state = 'running')
    """,
    seeds={
        "finished": """
            INSERT INTO django_jobs_job (task_path, queue_name, priority, args, kwargs, state, enqueued_at,
                started_at, last_attempted_at, finished_at, attempt, max_attempts, worker_id, meta, backend)
            SELECT 'benchmarks.peers.bodies.noop', 'default', 0, '[]', '{{}}', 'succeeded', now(),
                now(), now(), now(), 1, 3, 'seed', '{{}}', 'default'
            FROM generate_series(1, {count})
        """,
        "pending": """
            INSERT INTO django_jobs_job (task_path, queue_name, priority, args, kwargs, state, enqueued_at,
                attempt, max_attempts, worker_id, meta, backend)
            SELECT 'benchmarks.peers.bodies.noop', 'default', 0, '[]', '{{}}', 'ready', now(), 0, 3, '', '{{}}', 'default'
            FROM generate_series(1, {count})
        """,
        "scheduled": """
            INSERT INTO django_jobs_job (task_path, queue_name, priority, args, kwargs, state, enqueued_at,
                run_after, attempt, max_attempts, worker_id, meta, backend)
            SELECT 'benchmarks.peers.bodies.noop', 'default', 0, '[]', '{{}}', 'scheduled', now(),
                now() + interval '1 day', 0, 3, '', '{{}}', 'default'
            FROM generate_series(1, {count})
        """,
        # All of one key that has no slot: they stand in front of the jobs that come after them.
        "blocked": """
            WITH full_key AS (INSERT INTO django_jobs_limit (key, "limit", override) VALUES ('full', 1, 0))
            INSERT INTO django_jobs_job (task_path, queue_name, priority, args, kwargs, state, enqueued_at,
                concurrency_key, concurrency_limit, attempt, max_attempts, worker_id, meta, backend)
            SELECT 'benchmarks.peers.bodies.noop', 'default', 0, '[]', '{{}}', 'blocked', now(),
                'full', 1, 0, 3, '', '{{}}', 'default'
            FROM generate_series(1, {count})
        """,
    },
    environment={"DJANGO_SETTINGS_MODULE": "benchmarks.peers.ours.settings"},
    is_django=True,
    two_processes=("--processes", "2"),
    is_ours=True,
)
