"""The PostgreSQL of the tests and the demo: it leaves with whoever started it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
        psycopg.connect(url, connect_timeout=1).close()
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
        if process.is_running() and process.name() == "sleep":
            process.kill()


@pytest.mark.parametrize("leftover", ["nothing", "the number of another process"])
def test_data_stay_for_the_next_start(leftover: str) -> None:
    # Not below tmp_path: only its owner may enter that, and under root the server runs as somebody else.
    data = settings.FILES / f"postgres-{os.getpid()}"
    run("--data", str(data), "--", sys.executable, "-c", COUNT_STARTS)
    if leftover != "nothing":
        (data / "cluster" / "postmaster.pid").write_text(f"{psutil.Process().pid}\n")

    second = run("--data", str(data), "--", sys.executable, "-c", COUNT_STARTS)

    # A checkout that the server's user cannot enter keeps nothing, and says so.
    assert second.stdout == "2\n" or "temporary directory this time" in second.stderr, second.stderr
    shutil.rmtree(data)
