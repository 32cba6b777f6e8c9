"""Get Django's tests of its tasks framework: ``python -m tests.conformance.fetch`` prints the folder they are in.

They are of the Django that is installed. Django 5.2 has no such framework: there the tests of Django 6.0 are taken and
rewritten for the backport's names.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django

FILES = Path(__file__).resolve().parent.parent.parent / ".tests"
# The release whose framework the backport is a copy of.
FOR_THE_BACKPORT = "6.0.10"
PACKAGE = "tests/tasks/"

# What the backport calls otherwise, in the order of replacing.
_RENAMED = (
    (r"\bdjango\.tasks\b", "django_tasks"),
    (r"\bInvalidTask\b", "InvalidTaskError"),
    (r"\bInvalidTaskBackend\b", "InvalidTaskBackendError"),
    (r"support async Tasks\.", "support async tasks."),
)


class NotFetched(Exception):
    """Django's tests could not be had."""


def fetch() -> Path:
    """Return the folder in which Django's package ``tasks`` is, downloaded now if it was not before."""
    has_framework = django.VERSION >= (6, 0)
    version = django.get_version() if has_framework else FOR_THE_BACKPORT
    folder = FILES / f"django-{version}-tests{'' if has_framework else '-for-the-backport'}"
    if not (folder / "tasks" / "test_tasks.py").is_file():
        FILES.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FILES) as directory:
            package = _extract(_download(version, Path(directory)), Path(directory))
            if not has_framework:
                _rewrite(package)
            folder.mkdir(exist_ok=True)
            _put(package, folder / "tasks")
    return folder


def _download(version: str, directory: Path) -> Path:
    # Only the tests are taken: whether this Python could run that Django does not matter.
    options = ["--no-deps", "--no-binary", "django", "--ignore-requires-python", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(directory), f"django=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(directory.glob("*.tar.gz"))
    if done.returncode or not archives:
        raise NotFetched(
            f"Django's own tests are in the source distribution of Django {version}, which pip could not download. "
            "Run the tests once with the package index in reach; they are kept in .tests/ from then on.\n"
            f"{' '.join(command)}\n{done.stderr[-2000:]}"
        )
    return archives[0]


def _extract(archive: Path, directory: Path) -> Path:
    with tarfile.open(archive) as source:
        members = [member for member in source.getmembers() if member.name.partition("/")[2].startswith(PACKAGE)]
        source.extractall(directory, members, filter="data")
    found = [path.parent for path in directory.glob(f"*/{PACKAGE}test_tasks.py")]
    if not found:
        raise NotFetched(f"{archive.name} has no {PACKAGE}test_tasks.py: its tests have moved.")
    return found[0]


def _rewrite(package: Path) -> None:
    for path in package.glob("*.py"):
        text = path.read_text()
        for pattern, name in _RENAMED:
            text = re.sub(pattern, name, text)
        path.write_text(text)


def _put(package: Path, place: Path) -> None:
    try:
        package.rename(place)
    except OSError:
        # Another run has put them there meanwhile.
        if not (place / "test_tasks.py").is_file():
            raise


if __name__ == "__main__":
    print(fetch())
