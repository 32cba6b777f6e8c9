"""What the migration tells the database about the jobs table."""

from __future__ import annotations

import pytest
from django.db import connection

from django_jobs.models import Job
from django_jobs.notifications import can_notify

pytestmark = pytest.mark.django_db


def test_vacuum_comes_to_the_jobs_table_sooner_than_by_default() -> None:
    if not can_notify(connection):
        pytest.skip("PostgreSQL only")
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = %s", [Job._meta.db_table])
        [options] = cursor.fetchone()

    assert "autovacuum_vacuum_scale_factor=0.02" in options
