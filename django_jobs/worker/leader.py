"""The supervisor that holds the leader lease stages due jobs and does the duties.

Every supervisor runs this loop: it takes the jobs of its own dead workers at once, and tries for the lease. The
lease saves double work; nothing breaks if two lead for a moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from queue import Empty, SimpleQueue

from .. import signals
from ..models import Job, Lease, Worker
from ..models.lease import LEADER
from ..models.rescue import rescue_lost
from .duties import Duty
from .service import Service

logger = logging.getLogger("django_jobs")

# How many due jobs one statement makes ready.
STAGE_BATCH = 1000
# After an error of our own nobody is rescued for this long (seconds): when a database comes back, every worker's lease
# has ended, and each needs a moment to renew it.
_GRACE = 3.0


class DutyLoop(Service):
    """One duty, done every so many seconds in the thread of whoever calls ``do_if_due``."""

    def __init__(self, duty: Duty) -> None:
        super().__init__()
        self.name = f"duty {duty.name!r}"
        self._duty = duty
        self._due_at = 0.0

    def run_once(self) -> float:
        answer = self._duty.do()
        wait = answer.total_seconds() if isinstance(answer, timedelta) else self._duty.seconds
        return min(max(wait, 0.0), self._duty.seconds)

    def do_if_due(self, now: float) -> float:
        """Do the duty if its time has come; return the seconds until the next time."""
        if now >= self._due_at:
            self._due_at = now + self.attempt()
        return self._due_at - now


class Leader(Service):
    name = "leader"

    def __init__(
        self,
        holder: str,
        duties: Sequence[Duty],
        *,
        lease: float,
        poll_interval: float,
        is_beating: Callable[[], bool] = lambda: True,
        on_death: Callable[[Service], None] | None = None,
    ) -> None:
        """Lead as ``holder``; ``is_beating`` says whether the leases of this host's own workers are live."""
        super().__init__(on_death)
        self.is_leading = False
        self._holder = holder
        self._lease = timedelta(seconds=lease)
        self._elect_every = min(2.0, lease / 5)
        self._elect_at = 0.0
        self._poll_interval = poll_interval
        self._is_beating = is_beating
        self._duties = [DutyLoop(duty) for duty in duties]
        self._dead: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._grace_until = 0.0

    def rescue(self, worker_id: str, reason: str) -> None:
        """Have the jobs of a dead worker of ours taken at once. Any thread may call this."""
        self._dead.put((worker_id, reason))
        self.wake()

    def run_once(self) -> float:
        self._rescue_own()
        self._elect()
        if not self.is_leading:
            return self._elect_every
        pause = min(self._stage(), self._elect_every)
        # A host that stood still longer than its leases would else take the jobs of its own workers.
        if time.monotonic() >= self._grace_until and self._is_beating():
            pause = min(pause, *(duty.do_if_due(time.monotonic()) for duty in self._duties), self._poll_interval)
        return max(pause, 0.0)

    def recover(self) -> None:
        super().recover()
        self._grace_until = time.monotonic() + min(_GRACE, self._lease.total_seconds())

    def close(self) -> None:
        self._rescue_own()
        if self.is_leading:
            Lease.objects.resign(LEADER, self._holder)
            self._set_leading(False)
        super().close()

    def _rescue_own(self) -> None:
        while True:
            try:
                worker_id, reason = self._dead.get_nowait()
            except Empty:
                return
            try:
                count = rescue_lost([worker_id], reason)
            except Exception:
                self._dead.put((worker_id, reason))
                raise
            if Worker.objects.live().filter(worker_id=worker_id).exists():
                # A heartbeat had its row locked: once more with the next pass.
                self._dead.put((worker_id, reason))
                return
            level = logging.WARNING if count else logging.DEBUG
            logger.log(level, "Worker %s is dead; its %d jobs were rescued. %s", worker_id, count, reason)

    def _elect(self) -> None:
        now = time.monotonic()
        if now < self._elect_at:
            return
        self._set_leading(Lease.objects.hold(LEADER, self._holder, self._lease))
        self._elect_at = now + self._elect_every

    def _set_leading(self, leads: bool) -> None:
        if leads == self.is_leading:
            return
        # First, because it may fail: who has not heard of the change by then hears of it with the next election.
        Worker.objects.report(self._holder, is_leader=leads)
        self.is_leading = leads
        logger.info("%s %s", self._holder, "leads now." if leads else "does not lead any more.")
        signals.send(signals.leader_gained if leads else signals.leader_lost, Lease, worker_id=self._holder)

    def _stage(self) -> float:
        """Make due jobs ready; return the seconds until the next one is due, at most the poll interval."""
        wait = Job.objects.next_due_in()
        # Asked first, because it is one short look into an index: most of the time nothing is due.
        if wait is not None and wait <= timedelta():
            while Job.objects.stage_due(STAGE_BATCH) == STAGE_BATCH:
                pass
            wait = Job.objects.next_due_in()
        return self._poll_interval if wait is None else min(max(wait.total_seconds(), 0.0), self._poll_interval)


class PluginDuties(Service):
    """The duties of plugins, done while ``leads`` says that this process is the leader."""

    name = "plugin duties"

    def __init__(
        self, duties: Sequence[Duty], leads: Callable[[], bool], on_death: Callable[[Service], None] | None = None
    ) -> None:
        super().__init__(on_death)
        self._duties = [DutyLoop(duty) for duty in duties]
        self._leads = leads

    def run_once(self) -> float:
        if not self._leads():
            return 1.0
        return min(duty.do_if_due(time.monotonic()) for duty in self._duties)
