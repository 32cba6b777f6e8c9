"""One cell of the table: a peer's variant, in one measure, once. What every measure needs is here."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import reports
from .environments import BENCH, ROOT
from .peers.peer import ENQUEUED, Peer, Variant
from .producer import PeerFailed, Producer, producing
from .reports import STEPS, Reports
from .server import CELL, Database, Server
from .sizes import Sizes
from .worker import Worker, working

# How long a job may keep everybody waiting, in seconds.
PATIENCE = 60.0


@dataclass
class Cell:
    """Where a measure finds its peer, the server and the numbers. ``python`` has the peer installed."""

    server: Server
    peer: Peer
    variant: Variant
    python: Path
    sizes: Sizes

    @property
    def name(self) -> str:
        return f"{self.peer.name}:{self.variant.name}"

    @property
    def log(self) -> Path:
        logs = BENCH / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return logs / f"{self.peer.name}-{self.variant.name}.log"

    @contextmanager
    def database(self, seed: str = "") -> Iterator[Database]:
        """Yield a database with the peer's tables; with a ``seed``, with a million such rows in them."""
        template = self._template(seed)
        with self.server.database(CELL, template) as database:
            yield database

    def _template(self, seed: str) -> str:
        name = f"template_{self.peer.name}{'_' if seed else ''}{seed}"
        if name not in self.server.templates:
            self.server.make(name, self._template("") if seed else "template1")
            with self.server.watch(name) as database:
                if seed:
                    self._fill(database, seed)
                else:
                    with self.producer(database) as producer:
                        producer.call("setup")
            self.server.templates.add(name)
        return name

    def _fill(self, database: Database, seed: str) -> None:
        statement = self.peer.seeds[seed]
        if statement == ENQUEUED:
            with self.producer(database) as producer:
                for _ in range(0, self.sizes.rows, self.sizes.bulk):
                    producer.enqueue_many("noop", self.sizes.bulk)
        else:
            database.run(statement.format(count=self.sizes.rows))
        database.run("VACUUM ANALYZE")

    @contextmanager
    def producer(self, database: Database) -> Iterator[Producer]:
        with self.producers(database, 1) as (producer,):
            yield producer

    @contextmanager
    def producers(self, database: Database, count: int) -> Iterator[list[Producer]]:
        command = [str(self.python), "-m", self.peer.child]
        with ExitStack() as stack:
            environment = self._environment(database)
            yield [stack.enter_context(producing(command, environment, self.log)) for _ in range(count)]

    @contextmanager
    def worker(self, database: Database, expected: int, processes: int = 1) -> Iterator[tuple[Worker, Reports]]:
        """Start the peer's worker, which will get ``expected`` jobs; yield it and what its jobs report."""
        command = [str(self.python), *self.variant.worker]
        commands = [command] * processes
        if processes > 1 and self.peer.two_processes is not None:
            commands = [command + list(self.peer.two_processes)]
        with reports.listening() as heard:
            environment = self._environment(database) | {
                "BENCH_PORT": str(heard.port),
                "BENCH_STEP": str(max(1, expected // STEPS)),
            }
            with working(commands, environment, self.log) as worker:
                yield worker, heard

    def _environment(self, database: Database) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_JOBS_")}
        own = {"DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)}
        return {**inherited, **own, **self.peer.environment, **self.variant.environment}

    def jobs_for(self, seconds: float, pace: int | None = None) -> int:
        """Return how many jobs keep this variant busy for so long, as a round number within bounds."""
        wanted = min(max(seconds * (pace or self.variant.pace), self.sizes.fewest), self.sizes.most)
        return max(STEPS, round(wanted / STEPS) * STEPS)

    def wait_for_start(self, worker: Worker, heard: Reports) -> None:
        """Wait for the first job. Raise PeerFailed if none starts."""
        deadline = time.monotonic() + PATIENCE
        while heard.first is None:
            worker.must_live()
            if time.monotonic() > deadline:
                raise PeerFailed(f"no job started within {PATIENCE:.0f} s")
            heard.take(0.1)

    def wait_for_started(self, worker: Worker, heard: Reports, count: int, longest: float = math.inf) -> None:
        """Wait until so many jobs have started, as far as the reports tell, or ``longest`` seconds have passed.

        Raise PeerFailed if the reports stop coming.
        """
        begun = time.monotonic()
        deadline = begun + PATIENCE
        while heard.started < count and time.monotonic() < begun + longest:
            worker.must_live()
            if heard.take(0.1):
                worker.look_at_memory()
                deadline = time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise PeerFailed(f"{heard.started} of {count} jobs started, then none for {PATIENCE:.0f} s")

    def wait_for_end(self, database: Database, worker: Worker) -> float:
        """Wait until nothing is unfinished in the database; return that moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            asked = time.monotonic()
            if not database.value(self.peer.unfinished):
                return time.time()
            worker.must_live()
            if time.monotonic() > deadline:
                raise PeerFailed(f"jobs were still unfinished after {PATIENCE:.0f} s")
            # Where asking is dear, it is done less often: it must not slow down what it waits for.
            time.sleep(max(0.002, 4 * (time.monotonic() - asked)))
