"""One run of the bench: every measure once per repetition, in turn, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from django.conf import settings
from django.db import Error

from .. import conf
from ..exceptions import InvalidOption, JobsError
from ..models.sandbox import Plan, clear, plan_sandbox, sandbox
from .bodies import bench_tasks
from .measures import MEASURES, Bench, Figures

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# They have a line for each job, or for each start of a worker.
_TALKERS = ("django_jobs", "django.tasks", "django_tasks")


class Interrupted(JobsError):
    """A signal asked the bench to end. ``code`` is the exit code, as a shell would give it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Ended by {signal.Signals(number).name}. Nothing of the bench is left in the database.")
        self.code = 128 + number


@dataclass(frozen=True)
class Order:
    """What is asked of the bench."""

    jobs: int = 10_000
    repeat: int = 3
    measures: tuple[str, ...] = tuple(MEASURES)


@dataclass
class Figured:
    """What came of a run: for each measure its figures, one entry per repetition, or why it failed."""

    order: Order
    plan: Plan
    figures: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def check_order(jobs: int, repeat: int, measures: Iterable[str] | None) -> Order:
    """Return the order. Raise InvalidOption, naming the value, for one that cannot be followed."""
    for flag, number in (("--jobs", jobs), ("--repeat", repeat)):
        if number < 1:
            raise InvalidOption(f"{flag} must be at least 1, not {number}.")
    asked = list(measures or MEASURES)
    for name in asked:
        if name not in MEASURES:
            suggestion = conf.closest(name, MEASURES)
            hint = f" Did you mean {suggestion!r}?" if suggestion else ""
            raise InvalidOption(
                f"--measure {name!r}: there is no such measure.{hint} There are: {', '.join(MEASURES)}."
            )
    return Order(jobs, repeat, tuple(name for name in MEASURES if name in asked))


def run_bench(order: Order, say: Callable[[str], None]) -> Figured:
    """Measure. Raise JobsError when nothing can be measured; a measure that fails is in the result, with its reason."""
    conf.worker_options({})
    plan = plan_sandbox()
    say(describe(plan))
    figured = Figured(order, plan)
    with _signals() as checkpoint, _quiet(), sandbox(plan), bench_tasks() as tasks:
        bench = Bench(tasks, order.jobs, checkpoint)
        for _ in range(order.repeat):
            for name in order.measures:
                if name not in figured.failures:
                    _take(name, bench, figured)
    return figured


def describe(plan: Plan) -> str:
    """Say in one line what the bench is going to make, and remove."""
    own = f"a schema of its own, {plan.name}" if plan.folder is None else f"a file of its own in {plan.folder}"
    slow = " DEBUG is on, which makes it slower." if settings.DEBUG else ""
    return f"Measuring {plan.server}, database {plan.database!r}: in {own}, removed at the end.{slow}"


def _take(name: str, bench: Bench, figured: Figured) -> None:
    bench.checkpoint()
    try:
        clear()
        figured.figures.setdefault(name, []).append(MEASURES[name].take(bench))
    except Interrupted:
        raise
    except (JobsError, Error) as error:
        figured.failures[name] = str(error).strip() or type(error).__name__


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """Yield what raises Interrupted once a signal has asked for the end.

    A worker that is interrupted in the middle of its own end would leave threads behind, and they locks on what is to
    be removed. So a signal is looked at between two steps, a second one changes nothing, and only a third does not
    wait: it may leave the sandbox behind.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 2:
            raise KeyboardInterrupt

    def checkpoint() -> None:
        if received:
            raise Interrupted(received[0])

    # Under nohup, SIGHUP is ignored and stays so.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {}
    # Only the main thread of a process hears signals.
    with suppress(ValueError):
        before = {number: signal.signal(number, receive) for number in heeded}
    try:
        yield checkpoint
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
