"""What jobs tell the soak: one line for each event, in a file that outlives workers and servers.

Each line is one write to a file opened for appending: processes do not mix their lines, and what was written survives the
writer's kill. At the end the lines become a table beside the jobs, and what must hold is asked in SQL.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from django.db import connection

from django_jobs import current_job

VARIABLE = "SOAK_LEDGER"


def note(event: str) -> None:
    """Write a line about the running job. Called in workers."""
    job = current_job()
    assert job is not None
    line = f"{job.job_id},{job.attempt},{os.getpid()},{event},{time.time():.6f}\n"
    ledger = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


def load(ledger: Path) -> int:
    """Copy the ledger into a table of its own; return how many lines it has."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS ledger")
        cursor.execute("CREATE TABLE ledger (job_id bigint, attempt int, pid int, event text, at double precision)")
        with cursor.cursor.copy("COPY ledger FROM STDIN (FORMAT csv)") as copy:
            copy.write(ledger.read_text() if ledger.exists() else "")
        cursor.execute("CREATE INDEX ON ledger (job_id, attempt)")
        cursor.execute("ANALYZE ledger")
        cursor.execute("SELECT count(*) FROM ledger")
        return int(cursor.fetchone()[0])
