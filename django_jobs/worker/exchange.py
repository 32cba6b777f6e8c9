"""The worker's one conversation with the database about jobs.

Each turn writes the outcomes that have piled up, then claims the next jobs: in one transaction, or in several of which
none claims before the outcomes are written. Whatever piles up meanwhile goes with the next turn, so batches grow by
themselves under load and nothing waits for a timer.
Only this thread claims, so ``_held`` (claimed, and not yet written) is exactly what the database should say this
worker runs; a difference, which a commit that failed half-way can leave, is given back.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import notifications
from ..context import Progress
from ..exceptions import Interrupt, JobCancelled, JobInterrupted, LeaseLost
from ..models import Job, Worker
from ..models.admission import give_out
from ..models.compiled import own_session
from ..models.completion import Written, give_back_unknown
from ..models.database import exclusive, jobs_connection
from ..models.rooms import Rooms
from ..models.turn import LONGEST_WAIT
from ..outcomes import ClaimedJob, Outcome
from .announcer import Announcer
from .capacity import Capacity, Wanted
from .lanes import Lanes
from .news import News
from .options import WorkerOptions
from .outbox import REFUSALS, Outbox, is_passing
from .owner import Owner
from .progress import ProgressBoard
from .service import Service
from .turns import Turns
from .wakeup import Wakeup

logger = logging.getLogger("django_jobs")

# How often (seconds) to look at queues and requests to cancel; how soon to try a key again whose row somebody else had.
LOOK_INTERVAL, SLOTS_INTERVAL = 1.0, 0.05


class Exchange(Service):
    name = "exchange"

    def __init__(
        self,
        worker_id: str,
        options: WorkerOptions,
        capacity: Capacity,
        announcer: Announcer,
        *,
        owner: Owner,
        tags: Sequence[str] = ("*",),
        on_death: Callable[[Service], None] | None = None,
    ) -> None:
        super().__init__(on_death)
        self.worker_id = worker_id
        self.is_claiming = True
        # None: no limit.
        self.claims_left = 1 if options.once else None
        self.idle = threading.Event()
        self.processed = self.failed = 0
        self._ends_when_idle = options.once or options.burst
        self._lanes = Lanes(options.queues, tags, options.poll_interval)
        self._news = News(options.heartbeat_interval)
        self._capacity = capacity
        self._announcer = announcer
        self._owner = owner
        self._wakeup = Wakeup(options.notify, options.heartbeat_interval)
        self._outbox = Outbox(worker_id)
        self._held: dict[int, ClaimedJob] = {}
        self._progress = ProgressBoard()
        self._turns = Turns(worker_id, self._outbox)
        self._rooms = Rooms()
        # Concurrency keys whose slots this worker has freed, or heard of, until they have been given out.
        self._freed: set[str] = set()
        self._look_at = 0.0
        self._must_reconcile = True
        self._abandons = self._found_nothing = False
        # Of jobs that a hint has told of, since the last claim.
        self._has_heard = False

    # From other threads

    def wake(self) -> None:
        self._wakeup.wake()

    def done(self, outcome: Outcome) -> None:
        """Take the outcome of an attempt, to be written with the next turn."""
        self._outbox.put(outcome)
        self._wakeup.wake()

    def show_progress(self, job_id: int, progress: Progress) -> None:
        """Take a job's progress, to be written within a second or with its outcome."""
        self._progress.show(job_id, progress)

    def stop_claiming(self) -> None:
        """Claim nothing more, and give back what has not begun."""
        self.is_claiming = False
        # After the flag: a turn that has begun before it either holds jobs at its end or says so itself.
        self.idle.clear()
        self._news.soon()
        self.look_soon()

    def resume_claiming(self) -> None:
        self.is_claiming = True
        self._news.soon()
        self.look_soon()

    def interrupt_all(self, reason: type[Interrupt] = JobInterrupted) -> None:
        """Ask every running job to stop."""
        self._capacity.interrupt(set(self._held), reason)

    def abandon(self) -> None:
        """Give back every job that is still held, also those that run on: their outcomes will be refused."""
        self._abandons = True
        self.look_soon()

    @property
    def held(self) -> list[int]:
        """The ids of the jobs that this worker has claimed and whose outcome is not written."""
        return list(self._held)

    # The loop

    def run_once(self) -> float:
        self._owner.pulse()
        self._capacity.learn(self._outbox.collect())
        self._after_commit(self._outbox.already_written())
        if self._thread is not None:
            own_session(jobs_connection())
        self._look_around()
        is_full = self._turn()
        has_admitted = self._give_out_slots()
        self._settle()
        if is_full or has_admitted or self._outbox.has_arrivals:
            return 0.0
        return self._pause()

    def wait(self, seconds: float) -> None:
        for heard in self._wakeup.wait(seconds):
            kind, _, name = heard.partition(" ")
            if kind == notifications.READY and name in self._lanes:
                self._has_heard = True
                self._wakeup.look_again()
            elif kind == notifications.DUE:
                self._owner.on_due()
            elif kind == notifications.SLOTS:
                self._freed.add(name)
            elif kind != notifications.READY or self._lanes.may_serve(name):
                self._look_at = 0.0

    def recover(self) -> None:
        super().recover()
        # The transaction that failed may have been committed all the same.
        self._must_reconcile = True

    def close(self) -> None:
        self._wakeup.close()
        super().close()

    def look_again(self) -> None:
        """Look for jobs at once, unless limits keep them back."""
        if not self._rooms.is_held_back:
            self.look_soon()

    def look_soon(self) -> None:
        self._look_at = 0.0
        self.wake()

    def _pause(self) -> float:
        until_look = self._look_at - time.monotonic()
        search_in = self._capacity.search_in() if self._has_heard else None
        slots_in = SLOTS_INTERVAL if self._freed else None
        due = (self._progress.due_in(), search_in, slots_in, self._rooms.look_in)
        sooner = [seconds for seconds in due if seconds is not None]
        return max(0.0, min(until_look, *sooner, self._lanes.poll_interval * random.uniform(0.9, 1.1)))

    def _look_around(self) -> None:
        """Look at what changes slowly: the queues served, requests to cancel, our own row."""
        if self._must_reconcile:
            self._reconcile()
        if time.monotonic() < self._look_at and not self._news.is_due:
            return
        self._lanes.look()
        self._look_at = time.monotonic() + min(LOOK_INTERVAL, max(self._lanes.poll_interval, 0.05))
        if self._held:
            self._give_back_unbegun()
            self._pass_on_cancellations()
        if self._news.is_to_tell((self.processed, len(self._held))):
            if self._owner.report():
                self._reconcile()
            else:
                self._owner.on_lease_lost()

    def _reconcile(self) -> None:
        """Give back running jobs that the database says are ours and that we do not know."""
        given_back = give_back_unknown(self.worker_id, set(self._held))
        self._must_reconcile = False
        if given_back:
            logger.warning("Gave back %d jobs that worker %s did not know it had.", given_back, self.worker_id)

    def _give_back_unbegun(self) -> None:
        """Give back claimed jobs that must not begin here, or that others could begin sooner."""
        is_stuck = self._capacity.is_stuck
        if is_stuck:
            # Else the same turn would claim again what it gives back.
            self._capacity.stop_claiming_ahead()
        everything = not self.is_claiming or self._abandons or is_stuck
        closed = {job.queue_name for job in self._held.values()}.difference(self._lanes)
        if everything or closed:
            unbegun = self._capacity.take_back(lambda job: everything or job.queue_name in closed)
            self._outbox.give_back(unbegun)
        if self._abandons:
            self._outbox.give_back(self._outbox.without_waiting(self._held.values()))

    def _pass_on_cancellations(self) -> None:
        requested = Job.objects.held_by(self.worker_id).exclude(cancel_requested_at=None)
        ids = set(requested.values_list("pk", flat=True)) & set(self._held)
        if ids:
            unbegun = self._capacity.take_back(lambda job: job.id in ids)
            self._outbox.cancel(unbegun)
            self._capacity.interrupt(ids, JobCancelled)

    def _turn(self) -> bool:
        """Write what waits and claim. True: there is likely more to claim at once."""
        progress = self._progress.due(outcome.job.id for outcome in self._outbox.waiting)
        wanted = self._wanted()
        self._found_nothing, self._rooms = False, Rooms()
        if not (self._outbox.waiting or progress or wanted):
            return False
        began, had_outcomes = time.monotonic(), bool(self._outbox.waiting)
        try:
            claimed = self._write_and_claim(progress, wanted)
        except LeaseLost as lost:
            self._without_lease(lost)
            return False
        except REFUSALS as error:
            if is_passing(error):
                raise
            # It may be the one that was refused, and is worth no more than that.
            self._progress.take_down(progress)
            self._must_reconcile = True
            self._write_each(error)
            return False
        self._progress.take_down(progress)
        if wanted is None:
            return False
        seconds, is_full = time.monotonic() - began, claimed == wanted.limit
        # Its outcomes may have kept it so long that it did not claim; the next turn has fewer.
        is_late = had_outcomes and seconds > LONGEST_WAIT
        self._found_nothing = not claimed and not is_late
        if wanted.is_search and not is_full:
            self._capacity.found_few(seconds)
        return (is_full or is_late) and self._wanted() is not None

    def _wanted(self) -> Wanted | None:
        """Return what there is room for."""
        if not self.is_claiming or self._announcer.is_behind or not self._lanes or self.claims_left == 0:
            return None
        wanted = self._capacity.wanted()
        if wanted is None or self.claims_left is None:
            return wanted
        return wanted._replace(limit=min(wanted.limit, self.claims_left))

    def _write_and_claim(self, progress: Mapping[int, Any], wanted: Wanted | None) -> int:
        """Write what waits, claim what is wanted; return how many jobs were claimed."""
        if wanted is not None:
            self._has_heard = False
            held = self._outbox.without_waiting(self._held.values())
            self._rooms = self._lanes.rooms(held, self._capacity.free_for(wanted.kind))
        count = 0
        names = self._lanes.in_turn(wanted.kind) if wanted is not None else []
        for written, claimed in self._turns.take(progress, wanted, names, self._rooms):
            self._take_on(claimed)
            self._after_commit(written)
            count += len(claimed)
        return count

    def _take_on(self, claimed: Sequence[ClaimedJob]) -> None:
        """Hand claimed jobs to the executors; back, if somebody has said since this turn began that nothing is claimed."""
        claimed = self._lanes.with_settings(claimed)
        self._lanes.take_note(claimed)
        self._held.update((job.id, job) for job in claimed)
        if not self.is_claiming:
            self._outbox.give_back(claimed)
            return
        if self.claims_left is not None:
            self.claims_left -= len(claimed)
        self._capacity.submit(claimed)

    def _after_commit(self, written: Written) -> None:
        self._outbox.settle(written)
        for outcome in (*written.done, *written.late):
            held = self._held.get(outcome.job.id)
            # An attempt that was taken from us may end here while we hold the next one of the same job.
            if held is not None and held.attempt == outcome.job.attempt:
                del self._held[held.id]
                self._progress.forget(held.id)
        self._freed.update(outcome.job.concurrency_key for outcome in written.done if outcome.job.concurrency_key)
        self.processed += len(written.done)
        self.failed += sum(outcome.verb in ("fail", "retry", "postpone") for outcome in written.done)
        self._announcer.tell(written.done)

    def _give_out_slots(self) -> bool:
        """Let blocked jobs have the slots that have become free; say whether one got one."""
        if not self._freed:
            return False
        given = give_out(Job.objects.all(), self._freed)
        self._freed = set(given.left)
        self._found_nothing = self._found_nothing and not given.moved
        return given.moved > 0

    def _write_each(self, error: Exception) -> None:
        if not self._outbox.waiting:
            # It was no outcome that was refused.
            raise error
        for written in self._outbox.write_each(error):
            self._after_commit(written)

    def _without_lease(self, lost: LeaseLost) -> None:
        """Write what can be written; then end if we are held for lost, else wait for the next beat."""
        try:
            with exclusive():
                written = self._outbox.write()
        except REFUSALS as error:
            if is_passing(error):
                raise
            self._write_each(error)
        else:
            self._after_commit(written)
        if not Worker.objects.live().filter(worker_id=self.worker_id).exists():
            logger.error("%s", lost)
            self._owner.on_lease_lost()

    def _settle(self) -> None:
        """Say whether this worker holds nothing; in a burst, end when nothing is left to claim."""
        if self._held or self._outbox.waiting:
            self.idle.clear()
            return
        self.idle.set()
        nothing_left = self._found_nothing or not self._lanes or self.claims_left == 0
        if self._ends_when_idle and self.is_claiming and nothing_left and not self._freed:
            self._owner.on_nothing_left()
