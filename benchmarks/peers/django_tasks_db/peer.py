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
    unfinished="SELECT EXISTS (SELECT FROM django_tasks_db_dbtaskresult WHERE status IN ('READY', 'RUNNING'))",
    environment={"DJANGO_SETTINGS_MODULE": "benchmarks.peers.django_tasks_db.settings"},
    is_django=True,
)
