"""An error at any statement of the exchange: it goes on with the next pass, and nothing is lost or doubled.

A small story is told again and again; the n-th time its n-th statement meets an error, until none is left to meet it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection

from django_jobs.models import Attempt, Job, Queue, Worker
from django_jobs.outcomes import ClaimedJob
from django_jobs.states import FINISHED, AttemptOutcome, JobState
from tests.exchanges import Hand, enqueue

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

IS_POSTGRESQL = connection.features.has_select_for_update
# What a server says of its own accord: the statement has no effect, and its transaction none either.
STATES = {
    "statement timeout": "57014",
    "lock timeout": "55P03",
    "deadlock": "40P01",
    "serialization": "40001",
    "disk full": "53100",
    "out of memory": "53200",
    "read only": "25006",
    "internal error": "XX000",
}
# How often a story may go on after its error.
PATIENCE = 12

Strike = Callable[[Callable[..., Any], Any, Any, bool, dict[str, Any]], Any]


class Nth:
    """Lets the n-th statement of this thread's connection meet an error."""

    def __init__(self, number: int, strike: Strike) -> None:
        self._left = number
        self._strike = strike
        self.has_struck = False

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        self._left -= 1
        if self._left or self.has_struck:
            return execute(sql, params, many, context)
        self.has_struck = True
        return self._strike(execute, sql, params, many, context)


def raised_by_the_server(state: str) -> Strike:
    """Let the server refuse the statement with this SQLSTATE."""

    def strike(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        return execute(
            f"DO $$BEGIN RAISE 'as the test wants it' USING ERRCODE = '{state}'; END$$", None, False, context
        )

    return strike


def locked(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Answer as SQLite does when another writer holds the database for longer than the timeout."""
    raise OperationalError("database is locked")


def session_gone(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Lose the session before the statement."""
    _end_session(context["connection"])
    return execute(sql, params, many, context)


def answer_lost(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Lose the session after the statement, and with it the answer: it may have been committed all the same."""
    execute(sql, params, many, context)
    _end_session(context["connection"])
    raise OperationalError("the answer was lost")


def _end_session(struck: Any) -> None:
    struck.connection.close()


def _close_if_dead() -> None:
    """Let the test's own queries have a connection: an error in a hint's NOTIFY is no error of the pass."""
    if getattr(connection.connection, "closed", False):
        connection.close()


def strikes() -> dict[str, Strike]:
    if not IS_POSTGRESQL:
        # A file is never out of reach, and its answers are not lost.
        return {"database locked": locked}
    by_the_server = {name: raised_by_the_server(state) for name, state in STATES.items()}
    return {**by_the_server, "session gone": session_gone, "answer lost": answer_lost}


class Story:
    """A worker claims jobs of two queues, ends them in every way, claims what is ready again, and has nothing left."""

    def __init__(self) -> None:
        for rows in (Job.objects, Worker.objects, Queue.objects):
            rows.all().delete()
        for name in ("default", "mail"):
            Queue.objects.declare(name)
        self.ids = enqueue(7) + enqueue(3, queue_name="mail")
        self.begun: Counter[tuple[int, int]] = Counter()
        self.failures = 0

    def tell(self, nth: Nth) -> None:
        with Hand(concurrency=4, claim_ahead=0) as hand:
            self._hand = hand
            self._run(nth)

    def _run(self, nth: Nth) -> None:
        verbs = itertools.cycle(["succeed", "fail", "retry", "succeed", "release", "snooze"])
        for _ in range(60):
            self._pass(nth)
            while job := self._next():
                self.begun[job.id, job.attempt] += 1
                self._end(job, next(verbs) if job.attempt == 1 else "succeed")
            # As the leader does it; not what this is about.
            due = Job.objects.filter(state=JobState.SCHEDULED)
            if due.exists() and not self._hand.exchange.held:
                due.stage()
            if not Job.objects.exclude(state__in=FINISHED).exists() and not self._hand.exchange.held:
                return
        pytest.fail(f"Not ended: {list(Job.objects.values('id', 'state', 'attempt', 'worker_id'))}")

    def _pass(self, nth: Nth) -> None:
        self._hand.exchange.look_soon()
        with connection.execute_wrapper(nth):
            pause = self._hand.exchange.attempt()
        _close_if_dead()
        self.failures += self._hand.exchange.has_failed
        assert pause <= 2

    def _next(self) -> ClaimedJob | None:
        inbox = self._hand.threads._inbox
        return None if inbox.empty() else inbox.get()

    def _end(self, job: ClaimedJob, verb: str) -> None:
        if verb == "succeed":
            self._hand.exchange.show_progress(job.id, {"done": 1, "total": 2, "message": ""})
        result = {"result": "done"} if verb == "succeed" and job.id % 2 else {}
        self._hand.end(job, verb, delay=60.0, meta={"seen": job.attempt} if job.id % 3 == 0 else None, **result)

    def check(self) -> None:
        assert all(count == 1 for count in self.begun.values()), "an attempt ran twice"
        assert set(Job.objects.values_list("state", flat=True)) <= {JobState.SUCCEEDED, JobState.FAILED}
        for row in Job.objects.values("id", "attempt", "max_attempts", "state"):
            ran = sorted(attempt for job_id, attempt in self.begun if job_id == row["id"])
            history = dict(Attempt.objects.filter(job=row["id"]).values_list("number", "outcome"))
            # Each attempt has run or was given back, and each that did not succeed is in the history.
            unknown = [number for number, ended in history.items() if number not in ran]
            assert all(history[number] == AttemptOutcome.INTERRUPTED for number in unknown)
            assert sorted([*ran, *unknown]) == list(range(1, row["attempt"] + 1))
            last = () if row["state"] == JobState.FAILED else (row["attempt"],)
            assert set(history) == set(range(1, row["attempt"] + 1)).difference(last)
            counted = [ended for ended in history.values() if ended == AttemptOutcome.FAILED]
            assert row["max_attempts"] == 3 + len(history) - len(counted)
        assert self._hand.exchange.processed == len(self.begun)


# Every day some statements meet some errors; make faults lets each meet each.
QUICK = ("database locked", "deadlock", "answer lost")
EACH = [
    *(pytest.param(strike, 3, id=f"{name}, some") for name, strike in strikes().items() if name in QUICK),
    *(pytest.param(strike, 1, id=f"{name}, each", marks=pytest.mark.long) for name, strike in strikes().items()),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("strike", "step"), EACH)
def test_an_error_at_any_statement_of_the_exchange_loses_and_doubles_no_job(strike: Strike, step: int) -> None:
    for number in itertools.count(1, step):
        nth = Nth(number, strike)
        story = Story()

        story.tell(nth)

        try:
            story.check()
        except AssertionError as error:
            raise AssertionError(f"at statement {number}") from error
        assert story.failures <= 2
        if not nth.has_struck:
            break
    assert number > 20
    with pytest.raises(DatabaseError), connection.execute_wrapper(Nth(1, strike)):
        Job.objects.count()
    _close_if_dead()
