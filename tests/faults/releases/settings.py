"""The settings of a process whose code is the release that stands in the file JOBS_TEST_RELEASE, or this one."""

import os
from pathlib import Path

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

# In a file, so that a test can put new code in the place of what a process has started with.
RELEASE = Path(os.environ["JOBS_TEST_RELEASE"]).read_text()

if RELEASE:
    MIGRATION_MODULES = {"django_jobs": f"tests.faults.releases.{RELEASE}"}
if RELEASE == "columns":
    INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.releases"]
