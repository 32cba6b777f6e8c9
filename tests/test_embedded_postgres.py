"""The PostgreSQL of the tests and the demo: it leaves with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from django.conf import settings

from .processes import wait_until

RUN = [sys.executable, "-W", "error", "-m", "example_project.postgres", "run", "--fast"]
COUNT_STARTS = """
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS starts (at timestamptz)")
    connection.execute("INSERT INTO starts VALUES (now())")
    print(connection.execute("SELECT count(*) FROM starts").fetchone()[0])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *arguments], cwd=settings.ROOT, capture_output=True, text=True, check=False)


def answers(url: str) -> bool:
    try:
        # One that has ended refuses at once; one that lives may be busy.
        psycopg.connect(url, connect_timeout=20).close()
    except psycopg.OperationalError:
        return False
    return True


def test_the_command_gets_the_server_and_its_exit_code_is_passed_on() -> None:
    program = "import os, sys, psycopg; psycopg.connect(os.environ['DATABASE_URL']).close(); sys.exit(7)"

    ended = run("--", sys.executable, "-c", program)

    assert ended.returncode == 7, ended.stderr


def test_the_server_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "url"
    show = ["sh", "-c", f'echo "$DATABASE_URL" > {note}.new && mv {note}.new {note} && exec sleep 1000']
    starter = subprocess.Popen([*RUN, "--", *show], cwd=settings.ROOT)
    url = wait_until(lambda: note.exists() and note.read_text().strip(), timeout=60)
    family = psutil.Process(starter.pid).children(recursive=True)
    assert answers(url)

    starter.kill()
    starter.wait()

    wait_until(lambda: not answers(url), timeout=30, message=f"the end of the server at port {urlsplit(url).port}")
    for process in family:
        # The server's own are just ending.
        with suppress(psutil.NoSuchProcess):
            if process.name() == "sleep":
                process.kill()


@pytest.fixture
def data() -> Iterator[Path]:
    """Return a directory for data where the server's user, who is not root, can reach it: ``tmp_path`` is private."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "data"


@pytest.mark.parametrize("leftover", ["nothing", "the number of another process"])
def test_data_stay_for_the_next_start(data: Path, leftover: str) -> None:
    data.parent.chmod(0o755)
    count = ["--data", str(data), "--", sys.executable, "-c", COUNT_STARTS]
    run(*count)
    if leftover != "nothing":
        (data / "cluster" / "postmaster.pid").write_text(f"{psutil.Process().pid}\n")

    second = run(*count)

    assert second.stdout == "2\n", second.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root runs the server as somebody else.")
def test_data_that_the_server_cannot_reach_are_kept_nowhere_and_that_is_said(data: Path) -> None:
    ended = run("--data", str(data), "--", "true")

    assert ended.returncode == 0
    assert f"PostgreSQL cannot use {data}" in ended.stderr
