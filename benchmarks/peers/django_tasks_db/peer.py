"""django-tasks-db: the reference backend of the tasks framework; one job at a time, polls once a second."""

from __future__ import annotations

from benchmarks.peers.peer import Peer, Variant

DJANGO_TASKS_DB = Peer(
    name="django_tasks_db",
    variants=(
        Variant(
            "default",
            "db_worker, one thread, interval 1 s, CONN_MAX_AGE None",
            330,
            ("-m", "django", "db_worker", "--verbosity", "0"),
            concurrency=1,
        ),
    ),
    unfinished="SELECT EXISTS (SELECT FROM django_tasks_database_dbtaskresult WHERE status IN ('READY', 'RUNNING'))",
    seeds={
        state: f"""
            INSERT INTO django_tasks_database_dbtaskresult (id, status, args_kwargs, priority, task_path, queue_name,
                backend_name, run_after, enqueued_at, started_at, finished_at, exception_class_path, traceback, worker_ids)
            SELECT gen_random_uuid(), '{status}', '{{{{"args": [], "kwargs": {{{{}}}}}}}}', 0,
                'benchmarks.peers.framework_tasks.noop', 'default', 'default', {run_after}, clock_timestamp(),
                {ended}, {ended}, '', '', '[]'
            FROM generate_series(1, {{count}})
        """
        for state, status, run_after, ended in (
            ("finished", "SUCCESSFUL", "'9999-01-01'", "now()"),
            ("pending", "READY", "'9999-01-01'", "NULL::timestamptz"),
            ("scheduled", "READY", "now() + interval '1 day'", "NULL::timestamptz"),
        )
    },
    environment={"DJANGO_SETTINGS_MODULE": "benchmarks.peers.django_tasks_db.settings"},
    is_django=True,
)
