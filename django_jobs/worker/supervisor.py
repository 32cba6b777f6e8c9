"""The parent process: it starts workers, beats for them, does the leader's duties, restarts and stops them.

It runs no jobs and is never forked from: each worker is a fresh interpreter, joined by a socket pair (see ``child.py``).
The main thread waits on the sockets and on signals; a socket that ends means that its worker is dead. Heartbeat and
leader are loops in threads of their own, with one connection each.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta

from django.db import Error, connections

from ..exceptions import InvalidOption
from ..models import Worker as WorkerRow
from ..models.worker import WorkerKind
from ..states import WorkerState
from . import identity
from .duties import own_duties, plugin_duties
from .heartbeat import Heartbeat
from .leader import Leader, PluginDuties
from .middleware import load_factories
from .options import WorkerOptions, check_queues, declare_known_queues, declare_known_schedules
from .preflight import check_database, explained_errors
from .reload import Reloader
from .service import Service, within
from .stop_signals import held_up
from .watch import Watch
from .worker import EXIT_DIED, EXIT_OK, EXIT_UNFINISHED

logger = logging.getLogger("django_jobs")

# A worker that lived less than this (seconds) is not started again at once, but after a growing pause.
_SHORT_LIFE = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# The least that a worker gets to import the project's code before it counts as hung (seconds).
_LEAST_START = 60.0
# What workers get after SHUTDOWN_TIMEOUT for their last writes, before they are killed (seconds).
_STOP_GRACE = 10.0
# What each of our own loops gets for its last writes (seconds).
_LAST_WRITES = 5.0


class Child:
    """A worker process, as its supervisor sees it."""

    def __init__(self, options: WorkerOptions, number: int, life: int, supervisor: str, verbosity: int) -> None:
        self.number = number
        self.life = life
        self.line, theirs = socket.socketpair()
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        warnings = [flag for option in sys.warnoptions for flag in ("-W", option)]
        command = [sys.executable, *warnings, "-m", "django_jobs.worker.child"]
        with theirs, held_up():
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), env=env)
        self.started = self.pulsed = time.monotonic()
        self.worker_id = self._name(options)
        self.is_drained = self.has_pulsed = False
        told = {
            "options": options.as_json(),
            "worker_id": self.worker_id,
            "supervisor": supervisor,
            "verbosity": verbosity,
            "sys_path": sys.path,
            "python_path": os.environ.get("PYTHONPATH"),
        }
        self.say(json.dumps(told))

    def _name(self, options: WorkerOptions) -> str:
        if not options.worker_id:
            return identity.make_worker_id(self.process.pid)
        name = options.worker_id if options.processes == 1 else f"{options.worker_id}-{self.number}"
        # The dead worker's jobs are being taken from its name while the next one starts.
        return name if self.life == 1 else f"{name}.{self.life}"

    def say(self, message: str) -> None:
        with suppress(OSError):
            self.line.sendall(message.encode() + b"\n")

    def hear(self) -> set[str] | None:
        """Return what the worker has said; None when its process has ended."""
        try:
            data = self.line.recv(65536, socket.MSG_DONTWAIT)
        except OSError:
            data = b""
        if not data:
            return None
        self.pulsed = time.monotonic()
        heard = set(data.decode().split())
        self.is_drained = self.is_drained or "drained" in heard
        self.has_pulsed = self.has_pulsed or "pulse" in heard
        return heard

    def lived(self) -> float:
        return time.monotonic() - self.started

    def is_hung(self, hang_timeout: float) -> bool:
        """Say whether its loops have stood still for so many seconds, or its start for longer."""
        limit = hang_timeout if self.has_pulsed else max(hang_timeout, _LEAST_START)
        return time.monotonic() - self.pulsed > limit


class Supervisor:
    """Keeps ``options.processes`` workers running until it is told to stop."""

    def __init__(self, options: WorkerOptions, *, verbosity: int = 1, reload: bool = False) -> None:
        if not os.environ.get("DJANGO_SETTINGS_MODULE"):
            raise InvalidOption(
                "Worker processes need the environment variable DJANGO_SETTINGS_MODULE. Set it, or use --processes 0."
            )
        self.options = options
        self.supervisor_id = f"{options.worker_id}-supervisor" if options.worker_id else identity.make_worker_id()
        self.exit_code = EXIT_OK
        self._verbosity = verbosity
        self._children: dict[str, Child] = {}
        self._start_at: dict[int, float] = dict.fromkeys(range(1, options.processes + 1), 0.0)
        self._lives: dict[int, int] = {}
        self._short_lives: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._stops_asked = 0
        self._stops_passed_on = 0
        self._kill_at = float("inf")
        self._lease = timedelta(seconds=options.heartbeat_timeout)
        self._services = self._make_services(reload)

    def _make_services(self, reload: bool) -> list[Service]:
        options = self.options
        interval, timeout = options.heartbeat_interval, options.heartbeat_timeout
        heartbeat = Heartbeat(self._beating, interval, timeout, self._on_gone, self._on_death)
        self._leader = Leader(
            self.supervisor_id,
            own_duties(timeout),
            lease=timeout,
            poll_interval=options.poll_interval,
            is_beating=lambda: heartbeat.is_fresh,
            on_death=self._on_death,
        )
        watch = Watch([heartbeat, self._leader], options, self._on_death)
        services: list[Service] = [heartbeat, self._leader, watch]
        plugins = plugin_duties()
        if plugins:
            services.append(PluginDuties(plugins, lambda: self._leader.is_leading, self._on_death))
        if reload:
            services.append(Reloader(self._replace_all))
        return services

    # Life

    def run(self) -> int:
        """Supervise until told to stop; return the exit code. Raise JobsError if workers cannot start."""
        check_database(uses_processes=True, concurrency=self.options.concurrency)
        load_factories()
        self._listen_to_signals()
        with explained_errors():
            check_queues(self.options.queues)
            self._register()
            declare_known_queues()
            declare_known_schedules()
        connections.close_all()
        for service in self._services:
            service.start()
        logger.info("Supervisor %s started.", self.supervisor_id)
        while self._children or not self._is_done():
            self._start_missing()
            self._wait()
            self._pass_on_stops()
            self._kill_hung()
        self._end()
        return self.exit_code

    def _is_done(self) -> bool:
        return bool(self._stops_asked) or not self._start_at

    def _end(self) -> None:
        for service in self._services:
            service.stop(_LAST_WRITES)
        within(_LAST_WRITES, self._sign_off)
        connections.close_all()
        logger.info("Supervisor %s stopped with exit code %s.", self.supervisor_id, self.exit_code)

    def _sign_off(self) -> None:
        try:
            WorkerRow.objects.mark_stopped(self.supervisor_id)
        except Error as error:
            # The row is held for lost when its lease ends.
            logger.error("Supervisor %s stops, and its row does not say so: %s", self.supervisor_id, error)

    def _register(self) -> None:
        identity.clear_name(self.supervisor_id)
        WorkerRow.objects.register(
            self.supervisor_id,
            self._lease,
            kind=WorkerKind.SUPERVISOR,
            hostname=identity.hostname(),
            pid=os.getpid(),
            versions=identity.versions(),
            tags=identity.tags_of(self.supervisor_id, list(self.options.tags)),
            **self.options.served,
        )
        WorkerRow.objects.report(self.supervisor_id, state=WorkerState.RUNNING, rss=identity.memory())

    # Children

    def _start_missing(self) -> None:
        if self._stops_asked:
            return
        now = time.monotonic()
        running = {child.number for child in self._children.values()}
        for number, start_at in self._start_at.items():
            if number not in running and now >= start_at:
                self._lives[number] = self._lives.get(number, 0) + 1
                child = Child(self.options, number, self._lives[number], self.supervisor_id, self._verbosity)
                self._children[child.worker_id] = child
                self._selector.register(child.line, selectors.EVENT_READ, child)

    def _wait(self) -> None:
        now = time.monotonic()
        deadlines = [self._kill_at, now + 1.0]
        deadlines += [start_at for start_at in self._start_at.values() if start_at > now]
        for key, _ in self._selector.select(max(0.0, min(deadlines) - now)):
            if key.data is None:
                os.read(self._wake_read, 4096)
                continue
            heard = key.data.hear()
            if heard is None:
                self._bury(key.data)
            elif "due" in heard:
                self._leader.wake()
        # A process that a job has forked may hold the dead worker's end of the line.
        for child in [child for child in self._children.values() if child.process.poll() is not None]:
            # Its last words may have come after the select.
            child.hear()
            self._bury(child)

    def _bury(self, child: Child) -> None:
        """Take note of a worker's end: rescue what it left behind, and decide about the next."""
        self._selector.unregister(child.line)
        child.line.close()
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(1.0)
        if child.process.poll() is None:
            # Its end of the line is closed, so it could neither be told to stop nor be seen to hang.
            child.process.kill()
            child.process.wait()
        code = child.process.returncode
        del self._children[child.worker_id]
        if code != EXIT_OK:
            # Nothing is taken from a worker that has ended as it should: its row says so.
            self._leader.rescue(child.worker_id, f"Its process {describe_end(code)}.")
        if self._stops_asked or child.is_drained:
            self.exit_code = self.exit_code or (EXIT_UNFINISHED if code else EXIT_OK)
        if child.is_drained:
            del self._start_at[child.number]
        elif not self._stops_asked:
            self._plan_restart(child, code)

    def _plan_restart(self, child: Child, code: int) -> None:
        # One that has worked may have been killed by a job, which uses up its attempts: the others need not wait for that.
        cannot_start = child.lived() < _SHORT_LIFE and code and not child.has_pulsed
        short_lives = self._short_lives.get(child.number, 0) + 1 if cannot_start else 0
        self._short_lives[child.number] = short_lives
        # The first time at once: a job may have killed it.
        pause = min(_FIRST_PAUSE * 2 ** (short_lives - 2), _LONGEST_PAUSE) if short_lives > 1 else 0.0
        self._start_at[child.number] = time.monotonic() + pause
        logger.warning("Worker %s %s; the next starts in %.1f s.", child.worker_id, describe_end(code), pause)

    def _kill_hung(self) -> None:
        now = time.monotonic()
        for child in list(self._children.values()):
            if now >= self._kill_at:
                logger.error("Worker %s has not stopped in time and is killed.", child.worker_id)
            elif child.is_hung(self.options.hang_timeout):
                logger.error("Worker %s has stood still for %.0f s and is killed.", child.worker_id, now - child.pulsed)
            else:
                continue
            child.process.kill()

    def _replace_all(self) -> None:
        """Let every worker finish its jobs and end; new ones follow."""
        # One whose code did not import may be pausing; the new code is tried at once.
        self._start_at.update(dict.fromkeys(self._start_at, 0.0))
        for child in list(self._children.values()):
            child.say("stop")

    # Signals

    def _listen_to_signals(self) -> None:
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        # SIGQUIT is the second signal at once.
        self._stops_asked += 2 if number == signal.SIGQUIT else 1

    def _pass_on_stops(self) -> None:
        if self._stops_passed_on >= min(self._stops_asked, 2):
            return
        hurries = self._stops_asked > 1
        self._stops_passed_on = self._stops_asked
        logger.info("Supervisor %s stops its workers%s.", self.supervisor_id, " at once" if hurries else "")
        for child in self._children.values():
            child.say("hurry" if hurries else "stop")
        self._kill_at = time.monotonic() + _STOP_GRACE + (0 if hurries else self.options.shutdown_timeout)

    # What the loops ask and tell, from their threads

    def _beating(self) -> list[str]:
        fresh = [
            child.worker_id
            for child in list(self._children.values())
            if not child.is_hung(self.options.hang_timeout) and child.process.poll() is None
        ]
        return [self.supervisor_id, *fresh]

    def _on_gone(self, gone: set[str]) -> None:
        # A worker that is held for lost finds out by itself, and ends; one that has only just begun has no row yet.
        if self.supervisor_id in gone:
            logger.warning("Supervisor %s was held for lost; it registers again.", self.supervisor_id)
            self._register()

    def _on_death(self, service: Service) -> None:
        logger.critical("The %s loop of supervisor %s has died. It stops.", service.name, self.supervisor_id)
        self.exit_code = EXIT_DIED
        self._stops_asked += 1
        with suppress(OSError):
            os.write(self._wake_write, b"!")


def describe_end(code: int) -> str:
    """Return how a process with this return code ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
