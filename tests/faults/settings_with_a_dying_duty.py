"""The settings of the test project with the duty of ``dying_duty``."""

from tests.settings import *  # noqa: F403

DJANGO_JOBS = {"DUTIES": [("die", 0.1, "tests.faults.dying_duty.die")]}
