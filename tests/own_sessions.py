"""A thread with a session that is set up for turns, as the thread of a worker's exchange has it."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from django.db import connection

from django_jobs.models.compiled import own_session

from .exchanges import Hand

needs_compiling = pytest.mark.skipif(
    not connection.features.has_select_for_update_skip_locked,
    reason="Statements cannot be compiled here: the querysets are executed.",
)


def set_up() -> None:
    """Set up this thread's connection for turns."""
    own_session(connection)


def adopt(hand: Hand) -> None:
    """Let the exchange take this thread for its own: it sets up the connection in each pass."""
    hand.exchange._thread = threading.current_thread()


def prepared() -> list[str]:
    """Return the texts of the statements that this thread's session has prepared, past Django."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements", prepare=False)
        return [text for (text,) in cursor.fetchall()]


def planner_settings() -> list[str]:
    """Return the settings of this thread's session that turns change."""
    names = ("enable_seqscan", "enable_sort", "enable_bitmapscan", "plan_cache_mode")
    with connection.cursor() as cursor:
        return [_value(cursor, name) for name in names]


def _value(cursor: Any, name: str) -> str:
    cursor.execute("SELECT current_setting(%s)", [name])
    value: str = cursor.fetchone()[0]
    return value


OWN = ["off", "off", "off", "force_generic_plan"]
PLAIN = ["on", "on", "on", "auto"]
