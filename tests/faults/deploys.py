"""Two releases of django_jobs at once: processes with the code of the next one, and its migrations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.processes import Command, wait_until

FIRST = "0001_initial"


class Deploy:
    """The code of the next release, its environment, and ``manage.py`` with it."""

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        self._file = directory / "release"
        self._directory = directory
        self._commands = 0
        self._migrated: set[str] = set()
        # What a process with replaceable code has in its environment.
        self.env = {
            "DJANGO_SETTINGS_MODULE": "tests.faults.releases.settings",
            "JOBS_TEST_RELEASE": str(self._file),
        }
        self._project_env = {**env, **self.env}
        self.put("")

    def put(self, release: str) -> None:
        """Have processes that start from now on run the code of this release; empty: of our own."""
        self._file.write_text(release)

    def manage(self, *arguments: str) -> Command:
        """Start a command with the code of the release."""
        self._commands += 1
        return Command(list(arguments), self._project_env, self._directory / f"manage-{self._commands}.log")

    def migrate(self, *target: str) -> None:
        """Bring the tables to what the code of the release knows, or to ``target``."""
        self._migrated.add(self._file.read_text())

        def is_done() -> bool:
            command = self.manage("migrate", "django_jobs", *target)
            code = command.wait(60)
            if code and "deadlock detected" not in command.output():
                pytest.fail(f"migrate ended with {code}:\n{command.output()}")
            # A migration that met a worker in the other order is rolled back, and goes through the next time.
            return code == 0

        wait_until(is_done, timeout=60, message="the migration")

    def undo(self) -> None:
        """Bring the tables back to this release."""
        for release in list(self._migrated):
            self.put(release)
            self.migrate(FIRST)
