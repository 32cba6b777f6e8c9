"""Check that a wheel holds every file of the package, nothing else, and what a user needs to know of it."""

from __future__ import annotations

import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "django_jobs"
NEEDED = [f"{PACKAGE}/py.typed", f"{PACKAGE}/migrations/0001_initial.py"]
METADATA = {"Name": "django-db-jobs", "License-Expression": "MIT", "Requires-Python": ">=3.11"}


def main(path: str) -> int:
    problems = []
    with ZipFile(path) as wheel:
        packed = {name for name in wheel.namelist() if not name.endswith("/")}
        metadata_name = next(name for name in packed if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(metadata_name).decode())
    source = {str(file.relative_to(ROOT)) for file in (ROOT / PACKAGE).rglob("*") if _belongs(file)}
    problems += [f"missing from the wheel: {name}" for name in sorted((source | set(NEEDED)) - packed)]
    problems += [
        f"does not belong in the wheel: {name}" for name in sorted(packed - source) if ".dist-info/" not in name
    ]
    problems += [
        f"{key} is {metadata.get(key)!r}, not {value!r}"
        for key, value in METADATA.items()
        if metadata.get(key) != value
    ]
    if not any("licenses/LICENSE" in name for name in packed):
        problems.append("the licence is missing")
    print(*problems, sep="\n") if problems else print(f"{Path(path).name}: {len(packed)} files, as they should be.")
    return 1 if problems else 0


def _belongs(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
