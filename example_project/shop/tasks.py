"""The jobs of the shop. Each may run twice, because jobs run at least once, and does no harm then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Count, F, QuerySet, Sum
from django.db.models.functions import Now
from django.template.loader import render_to_string
from django.utils import timezone

from django_jobs import Snooze, task
from django_jobs.context import JobContext
from django_jobs.retries import exponential

from .models import Order, RejectedLine, SalesReport, Upload
from .order_lines import Line, read_lines

# Large enough that a transaction is worth it, small enough that the progress moves and no lock is held for long.
CHUNK = 250
# A report that waits for a receipt that never gets out would wait for ever.
PATIENCE = timedelta(minutes=5)
T = TypeVar("T")


class MailServerBusy(Exception):
    """The mail server says: not now."""


@task(queue_name="imports", takes_context=True, max_attempts=5)
def import_orders(context: JobContext, upload_id: int) -> dict[str, int]:
    """Turn an upload into orders, chunk by chunk, each with its receipts in one transaction."""
    upload = Upload.objects.get(pk=upload_id)
    for chunk in _chunks(read_lines(upload.text), CHUNK):
        _store(upload_id, chunk)
        context.progress(chunk[-1].line, upload.lines, f"{chunk[-1].line:,} of {upload.lines:,} lines read")
    _finish(upload_id)
    context.progress(upload.lines, upload.lines, "all lines read")
    return {"orders": upload.orders.count(), "rejected": upload.rejected_lines.count()}


@task(
    queue_name="receipts",
    takes_context=True,
    max_attempts=5,
    backoff=exponential(first=1),
    ignore_on=Order.DoesNotExist,
)
def send_receipt(context: JobContext, order_id: int) -> None:
    """Send the customer of an order the receipt.

    No transaction holds an e-mail back: if the worker dies between the e-mail and the note of it, the
    customer gets the receipt twice. That is better than never.
    """
    order = Order.objects.get(pk=order_id)
    if order.receipt_sent_at is not None:
        return
    every = settings.SHOP_MAIL_BUSY_EVERY
    if every and order.line % every == 0 and context.attempt == 1:
        raise MailServerBusy(f"Too many messages; try order {order.number} again later.")
    text = render_to_string("shop/receipt.txt", {"order": order, "total": order.quantity * order.unit_price})
    send_mail(f"Your order {order.number}", text, None, [order.email])
    Order.objects.filter(pk=order_id).update(receipt_sent_at=Now())


@task(queue_name="reports")
def make_report(upload_id: int) -> str:
    """Add up the orders of an upload, once their receipts are out, and return the revenue."""
    upload = Upload.objects.get(pk=upload_id)
    waiting = upload.orders.filter(receipt_sent_at=None).count()
    if waiting and upload.imported_at and timezone.now() - upload.imported_at < PATIENCE:
        raise Snooze(1, f"{waiting:,} receipts are not out yet.")
    revenue = Sum(F("quantity") * F("unit_price"))
    sums = upload.orders.aggregate(orders=Count("pk"), revenue=revenue)
    products = upload.orders.values("product").annotate(pieces=Sum("quantity"), revenue=revenue)
    countries = upload.orders.values("country").annotate(orders=Count("pk"), revenue=revenue)
    report = {
        "orders": sums["orders"],
        "revenue": sums["revenue"] or 0,
        "best_sellers": _first_five(products, "product"),
        "countries": _first_five(countries, "country"),
    }
    SalesReport.objects.update_or_create(upload=upload, defaults=report)
    return f"{report['revenue']:.2f}"


@task(name="shop.nightly_report", queue_name="reports")
def report_on_yesterday() -> dict[str, Any]:
    """Add up yesterday's orders and return what the shop's people read in the morning; a schedule runs it at night."""
    yesterday = timezone.localdate() - timedelta(days=1)
    return {"day": str(yesterday), **_sums_of(Order.objects.filter(ordered_on=yesterday))}


@task(name="shop.count_orders", queue_name="reports")
def count_orders(days: int) -> dict[str, Any]:
    """Add up the orders of the uploads of the last days; a schedule in the settings has it run each minute."""
    since = timezone.now() - timedelta(days=days)
    return {"days": days, **_sums_of(Order.objects.filter(upload__uploaded_at__gte=since))}


def _sums_of(orders: QuerySet[Order]) -> dict[str, Any]:
    sums = orders.aggregate(orders=Count("pk"), revenue=Sum(F("quantity") * F("unit_price")))
    return {"orders": sums["orders"], "revenue": f"{sums['revenue'] or 0:.2f}"}


def _first_five(rows: QuerySet[Any, Any], name: str) -> list[dict[str, Any]]:
    """Return the rows with the most revenue, as JSON holds them."""
    return [row | {"revenue": f"{row['revenue']:.2f}"} for row in rows.order_by("-revenue", name)[:5]]


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _store(upload_id: int, chunk: list[Line]) -> None:
    """Store the lines that are not stored yet, and enqueue the receipts of these orders, all or nothing."""
    with transaction.atomic():
        # Two runs of one import take turns here, so that each sees what the other has stored.
        upload = Upload.objects.select_for_update().get(pk=upload_id)
        numbers = [item.line for item in chunk]
        stored = set(upload.orders.filter(line__in=numbers).values_list("line", flat=True))
        orders = [item for item in chunk if isinstance(item, Order) and item.line not in stored]
        rejected = [item for item in chunk if isinstance(item, RejectedLine)]
        for order in orders:
            order.upload = upload
        for line in rejected:
            line.upload = upload
        RejectedLine.objects.bulk_create(rejected, ignore_conflicts=True)
        Order.objects.bulk_create(orders)
        send_receipt.enqueue_many([((order.pk,), {}) for order in orders])


def _finish(upload_id: int) -> None:
    """Note that the import is done and enqueue its report, unless an earlier run has done both."""
    with transaction.atomic():
        if Upload.objects.filter(pk=upload_id, imported_at=None).update(imported_at=Now()):
            make_report.enqueue(upload_id)
