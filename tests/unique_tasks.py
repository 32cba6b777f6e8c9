"""Tasks whose jobs are unique, for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django_jobs import task
from django_jobs.context import JobContext

HOUR = timedelta(hours=1)


@task(unique=True)
def import_file(path: str, mode: str = "all", *parts: int, depth: int = 0, **rest: Any) -> None:
    """One for each call."""


@task(unique=True)
def import_folder(path: str, mode: str = "all") -> None:
    """Another one that takes the same."""


@task(unique=True, takes_context=True)
def tell(context: JobContext, subject: str = "weather") -> None:
    """One for each subject."""


@task(unique=("order_id",))
def ship(order_id: int, note: str = "") -> str:
    """One for each order."""
    return note


@task(unique=["tenant", "order_id"])
def bill(order_id: int, **rest: Any) -> None:
    """One for each order of a tenant."""


@task(unique=lambda order, **rest: order.get("number"))
def settle(order: dict[str, Any], **rest: Any) -> None:
    """One for each number of an order; those without a number are many."""


@task(name="shop: close %", aliases=["shop.close"], unique=True)
def close(day: str) -> None:
    """It has a name of its own."""


@task(unique=("order_id",), on_conflict="raise")
def ship_once(order_id: int, note: str = "") -> None:
    """One for each order, or an error."""


@task(unique=("order_id",), on_conflict="replace", meta={"team": "sales"})
def ship_latest(order_id: int, note: str = "") -> str:
    """One for each order, with the latest note."""
    return note


@task(unique=("order_id",), unique_for=HOUR)
def remind(order_id: int, note: str = "") -> None:
    """One for each order and hour."""


@task(unique=("order_id",), unique_for=3600, on_conflict="replace")
def index(order_id: int, note: str = "") -> str:
    """One for each order, an hour after the last call."""
    return note
