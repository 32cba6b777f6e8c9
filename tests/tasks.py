"""The tasks of the tests. Add at the end; other tests count on what is here."""

from __future__ import annotations

from typing import Any

from django_jobs import task
from django_jobs.context import JobContext
from django_jobs.retries import fixed

from .compat import django_task


@task
def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing, with any arguments."""


@task
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@task
async def add_async(a: int, b: int) -> int:
    return a + b


@task(takes_context=True)
def tell_attempt(context: JobContext, subject: Any = None) -> int:
    return context.attempt


@task(queue_name="mail", priority=5, max_attempts=7)
def send_mail(address: str) -> None:
    """Send nothing: it has options."""


@task(name="orders.receipt", aliases=["orders.mail_receipt", "shop.tasks.receipt"])
def send_receipt(order_id: int) -> None:
    """Send nothing: it has a name of its own, and older ones."""


@task(backoff=fixed(0), meta={"team": "sales"})
def report(month: str) -> None:
    """Report nothing: it has a note."""


@django_task()
def made_by_django(a: int) -> int:
    return a


def _key_of_account(account: int, size: int = 1) -> str:
    return f"account {account}"


def _limit_of_account(account: int, size: int = 1) -> int:
    return size


@task(concurrency_key=_key_of_account, concurrency_limit=_limit_of_account)
def sync_account(account: int, size: int = 1) -> None:
    """Sync nothing: it needs a slot of its account."""
