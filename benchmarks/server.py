"""The throwaway PostgreSQL of a run, seen from outside: databases, processor time, WAL, commits, its log.

Every cell of the table gets a database of its own, a copy of a template that its peer has set up: no run
sees the dead rows of another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from example_project.postgres import running_postgres

CELL = "cell"
LOGGED_STATEMENT = re.compile(rb"LOG:  (?:statement|execute [^:]+): ")

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass
class Database:
    """One database, with a connection that watches it. ``asked`` counts the statements of that connection."""

    url: str
    connection: Connection
    asked: int = 0

    def value(self, query: str) -> Any:
        """Return the first column of the first row."""
        self.asked += 1
        row = self.connection.execute(query.encode()).fetchone()
        return row[0] if row else None

    def run(self, statement: str) -> None:
        self.asked += 1
        self.connection.execute(statement.encode())

    def commits(self) -> int:
        """Return how many transactions were committed here by sessions that have ended, and by this one."""
        self.run("SELECT pg_stat_force_next_flush()")
        return int(self.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))


@dataclass
class Server:
    """A running server. Sizes are in bytes, processor times in seconds."""

    url: str
    watcher: Connection
    templates: set[str] = field(default_factory=set)

    @property
    def version(self) -> str:
        return str(self._value("SHOW server_version"))

    def settings(self) -> dict[str, str]:
        """Return the settings that decide what a commit costs."""
        names = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "wal_level")
        return {name: str(self._value(f"SHOW {name}")) for name in names}

    def wal_position(self) -> int:
        return int(self._value("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))

    def cpu(self) -> float:
        """Return the processor time that the server and its sessions have used, those that ended included."""
        postmaster = psutil.Process(self.watcher.info.backend_pid).parent()
        assert postmaster is not None
        times = postmaster.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for process in postmaster.children():
            with suppress(psutil.Error):
                own = process.cpu_times()
                total += own.user + own.system
        return float(total)

    def log_path(self) -> Path:
        return Path(str(self._value("SHOW data_directory"))).with_name("log")

    def count_logged_statements(self, since: int) -> int:
        """Return how many statements the log has from this position on, in bytes."""
        with self.log_path().open("rb") as log:
            log.seek(since)
            return sum(1 for line in log if LOGGED_STATEMENT.search(line))

    def log_statements_of_new_sessions(self, database: str) -> int:
        """Have all statements of later sessions in this database logged; return where the log stands, in bytes."""
        self._do("ALTER DATABASE {} SET log_statement = 'all'", database)
        return self.log_path().stat().st_size

    def address_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    @contextmanager
    def database(self, name: str, template: str = "template1") -> Iterator[Database]:
        """Make a database, yield it, and drop it with all who are still connected to it."""
        self.make(name, template)
        try:
            with self.watch(name) as database:
                yield database
        finally:
            self.drop(name)

    def make(self, name: str, template: str) -> None:
        self.drop(name)
        self._do("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)

    @contextmanager
    def watch(self, name: str) -> Iterator[Database]:
        address = self.address_of(name)
        with psycopg.connect(address, autocommit=True) as connection:
            yield Database(address, connection)

    def drop(self, name: str) -> None:
        self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _do(self, statement: str, *names: str) -> None:
        self.watcher.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))

    def _value(self, query: str) -> Any:
        row = self.watcher.execute(query.encode()).fetchone()
        return row[0] if row else None


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server with PostgreSQL's own durability: every commit waits for the disk."""
    with running_postgres(durable=True) as url, psycopg.connect(url, autocommit=True) as watcher:
        yield Server(url, watcher)
