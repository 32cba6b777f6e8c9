"""A virtual environment for each peer, under ``.bench/``, with the versions of its ``requirements.txt``.

It is made with the interpreter that runs the benchmark, or with another one of this machine where the peer
needs a later Python, and kept for the next run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .peers.peer import Peer

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
LATEST_PYTHON = (3, 14)
ASK_VERSION = "import sys, venv, ensurepip; print(*sys.version_info[:2])"


class CannotInstall(Exception):
    """A peer is left out; the message is the reason that the table shows."""


def python_of(peer: Peer) -> Path:
    """Return the interpreter that has the peer installed. Raise CannotInstall with the reason if there is none."""
    if peer.is_ours:
        return Path(sys.executable)
    home = BENCH / peer.name
    installed = home / "installed.txt"
    wanted = peer.requirements.read_text()
    if not installed.exists() or installed.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        _run([str(interpreter(peer.least_python)), "-m", "venv", str(home)])
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--requirement", str(peer.requirements)])
        installed.write_text(wanted)
    return home / "bin" / "python"


def interpreter(least: tuple[int, int]) -> Path:
    """Return the interpreter of this program if it is new enough, else the first one of this machine that is."""
    if sys.version_info[:2] >= least:
        return Path(sys.executable)
    for candidate in _candidates(least):
        if os.access(candidate, os.X_OK) and _version_of(candidate) >= least:
            return candidate
    raise CannotInstall(f"needs Python {least[0]}.{least[1]} or later, and none was found")


def _candidates(least: tuple[int, int]) -> Iterator[Path]:
    """Yield where interpreters may be, oldest version first: on the PATH, and where version managers keep them."""
    home = Path.home()
    places = (
        (Path(os.environ.get("PYENV_ROOT") or home / ".pyenv"), "versions/{version}*/bin/python"),
        (Path("/opt"), "*/bin/python{version}"),
        (Path("/opt"), "*/*/bin/python{version}"),
        (Path("/usr/local/bin"), "python{version}"),
        (home / ".local/share/uv/python", "*/bin/python{version}"),
        (home / ".asdf/installs/python", "{version}*/bin/python"),
        (home / ".local/share/mise/installs/python", "{version}*/bin/python"),
    )
    for minor in range(least[1], LATEST_PYTHON[1] + 1):
        version = f"{least[0]}.{minor}"
        on_path = shutil.which(f"python{version}")
        if on_path:
            yield Path(on_path)
        for folder, pattern in places:
            yield from sorted(folder.glob(pattern.format(version=version)))


def _version_of(candidate: Path) -> tuple[int, ...]:
    """Ask the interpreter itself: a version manager's shim is there for versions that it does not have."""
    asked = subprocess.run([candidate, "-c", ASK_VERSION], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in asked.stdout.split()) if asked.returncode == 0 else ()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise CannotInstall(f"cannot be installed: {errors[-1].removeprefix('ERROR: ')}")
