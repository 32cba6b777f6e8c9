"""A PostgreSQL server of a test's own, which it may stop, kill and start again, on the same port and with the same data."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
from django.core.management import call_command
from django.db import connection

from example_project import postgres_keeper as keeper

TABLES = """
SELECT string_agg(quote_ident(tablename), ',') FROM pg_tables
WHERE schemaname = 'public' AND tablename <> 'django_migrations'
"""


class Server:
    """Made once per session; ``start`` and ``stop`` as often as a test likes."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = keeper.free_port()

    def __enter__(self) -> Self:
        self._identity = keeper.server_identity()
        self._home = keeper.temporary_directory(self._stack, self._identity)
        self._binaries = keeper.usable_binaries(self._home, self._identity)
        self._cluster = self._home / "cluster"
        keeper.create_cluster(self._cluster, self._binaries, self._identity)
        self.password = (self._home / "password").read_text()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._stack.close()

    @property
    def url(self) -> str:
        return f"postgres://postgres:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, and return once it takes connections."""
        if self.is_running:
            return
        # What was committed survives the server, if not the machine.
        kept = {"synchronous_commit": "on", "unix_socket_directories": str(self._home)}
        settings = keeper.SETTINGS | keeper.FAST_SETTINGS | kept
        command = [str(self._binaries / "postgres"), "-D", str(self._cluster), "-p", str(self.port)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        with Path(self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, **self._identity, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        assert keeper.becomes_ready(self._process, self._cluster), (self._home / "log").read_text()

    def stop(self) -> None:
        """Stop the server as ``pg_ctl stop -m immediate`` does: like a crash of all its processes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill_backend(self, pid: int) -> None:
        """Kill one server process: the others end too, and the server recovers."""
        assert self._process is not None
        assert psutil.Process(pid).ppid() == self._process.pid
        os.kill(pid, signal.SIGKILL)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute a statement over a connection of its own."""
        with psycopg.connect(self.url.replace("postgres:", "postgresql:", 1), autocommit=True) as session:
            cursor = session.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        [(tables,)] = self.ask(TABLES)
        self.ask(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")

    def migrate(self) -> None:
        with self.instead():
            call_command("migrate", verbosity=0, interactive=False)

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Let the tests' own connection lead to this server."""
        before = connection.settings_dict
        own = {"HOST": "127.0.0.1", "PORT": str(self.port), "USER": "postgres", "PASSWORD": self.password}
        connection.close()
        connection.settings_dict = {**before, **own, "NAME": "postgres"}
        try:
            yield
        finally:
            connection.close()
            connection.settings_dict = before
