"""The example shop: upload, import, receipts, report. The demo itself is run by ``.ci/run``."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_jobs import Snooze
from django_jobs.context import JobContext
from django_jobs.models import Job, Schedule
from example_project import sample_orders
from example_project import settings as example_settings
from example_project.demo.firings import Firings, line_of
from example_project.shop import tasks
from example_project.shop.models import Order, SalesReport, Upload
from example_project.shop.order_columns import COLUMNS
from example_project.shop.views import receive

pytestmark = pytest.mark.django_db


def csv_of(lines: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def import_now(upload: Upload) -> dict[str, int]:
    job = Job.objects.get(pk=upload.job_id)
    result = tasks.import_orders.get_result(str(job.pk))
    counts: dict[str, int] = tasks.import_orders.func(JobContext(task_result=result), upload.pk)
    return counts


def send_all_receipts() -> None:
    for job in Job.objects.filter(task_path=tasks.send_receipt.path):
        context = JobContext(task_result=tasks.send_receipt.get_result(str(job.pk)), number=1)
        tasks.send_receipt.func(context, *job.args)


def upload_file(client: Client, content: bytes) -> object:
    return client.post(reverse("shop:home"), {"file": SimpleUploadedFile("orders.csv", content)})


def test_an_uploaded_file_is_stored_and_its_import_enqueued(client: Client) -> None:
    response = upload_file(client, csv_of(sample_orders.sample(3, seed=1)).encode())

    upload = Upload.objects.get()
    assert response.headers["Location"] == upload.get_absolute_url()
    assert upload.lines == 4
    assert Job.objects.get(pk=upload.job_id).args == [upload.pk]
    assert client.get(upload.get_absolute_url()).status_code == 200


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "The submitted file is empty."),
        (b"number,email\n1,a@example.com\n", "does not name these columns: ordered_on"),
        (b"number\x00", "NUL"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"x" * 200_000, "does not name these columns"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_the_reason(
    client: Client, content: bytes, problem: str
) -> None:
    response = upload_file(client, content)

    assert response.status_code == 400
    assert problem in response.content.decode()
    assert not Job.objects.exists()


def test_the_import_stores_good_lines_and_names_what_is_wrong_with_the_others() -> None:
    lines = sample_orders.with_mistakes(sample_orders.sample(40, seed=2))
    upload = receive("orders.csv", csv_of(lines) + "too,many,values,in,this,line,1,2.00,here\nshort\n")

    counts = import_now(upload)

    problems = dict(upload.rejected_lines.values_list("line", "problem"))
    assert counts == {"orders": 34, "rejected": 8}
    assert problems[5].startswith("email: Enter a valid email")
    assert problems[42] == "There are more values than columns."
    assert "customer: This field is required." in problems[43]


def test_a_second_run_of_the_import_adds_nothing() -> None:
    upload = receive("orders.csv", csv_of(sample_orders.with_mistakes(sample_orders.sample(40, seed=2))))
    first = import_now(upload)
    jobs = Job.objects.count()

    second = import_now(upload)

    assert second == first
    assert Job.objects.count() == jobs == 1 + first["orders"] + 1


def test_the_report_waits_until_every_receipt_is_out() -> None:
    upload = receive("orders.csv", csv_of(sample_orders.sample(12, seed=1)))
    import_now(upload)

    with pytest.raises(Snooze, match="12 receipts"):
        tasks.make_report.func(upload.pk)
    send_all_receipts()
    revenue = tasks.make_report.func(upload.pk)

    report = SalesReport.objects.get()
    assert report.orders == 12
    assert report.revenue == sum(order.quantity * order.unit_price for order in Order.objects.all())
    assert revenue == f"{report.revenue:.2f}"


def test_a_receipt_is_sent_once_however_often_its_job_runs() -> None:
    import_now(receive("orders.csv", csv_of(sample_orders.sample(5, seed=1))))

    send_all_receipts()
    send_all_receipts()

    order = Order.objects.get(line=2)
    assert len(mail.outbox) == 5
    assert mail.outbox[0].to == [order.email]
    assert f"Total: {order.quantity * order.unit_price}" in mail.outbox[0].body


def test_the_status_tells_how_far_the_import_is(client: Client) -> None:
    upload = receive("orders.csv", csv_of(sample_orders.sample(5, seed=1)))
    url = reverse("shop:upload-status", args=[upload.pk])
    before = client.get(url).json()
    import_now(upload)
    send_all_receipts()
    tasks.make_report.func(upload.pk)

    after = client.get(url).json()

    assert before["state"] == "ready"
    assert before["lines"] == {"done": 0, "total": 6}
    assert (before["done"], after["done"]) == (False, True)
    assert after["receipts"] == {"done": 5, "total": 5}
    assert after["report"]["orders"] == 5


def test_the_sample_files_are_what_their_program_writes() -> None:
    for name, lines in sample_orders.files().items():
        assert (sample_orders.DATA / name).read_text() == csv_of(lines)


def test_only_samples_are_handed_out(client: Client) -> None:
    found = client.get(reverse("shop:sample", args=["orders-25.csv"]))
    other = client.get(reverse("shop:sample", args=["settings.py"]))

    assert found.status_code == 200
    assert other.status_code == 404
    found.close()


def test_the_shop_declares_its_schedules(settings: Any) -> None:
    settings.DJANGO_JOBS = example_settings.DJANGO_JOBS

    Schedule.objects.declare_all()

    rows = Schedule.objects.filter(task_path__startswith="shop.").values_list("name", "cron", "timezone")
    assert set(rows) == {
        ("nightly report", "30 2 * * *", "Europe/Paris"),
        ("orders of the week", "* * * * *", "UTC"),
    }
    assert [row.problem for row in Schedule.objects.filter(task_path__startswith="shop.")] == ["", ""]


def test_the_reports_of_the_schedules_add_up_orders() -> None:
    import_now(receive("orders.csv", csv_of(sample_orders.sample(12, seed=1))))
    order = Order.objects.get(line=2)
    others = Order.objects.exclude(pk=order.pk)
    others.update(ordered_on="2020-01-01")
    Order.objects.filter(pk=order.pk).update(ordered_on=timezone.localdate() - timedelta(days=1))

    nightly, weekly = tasks.report_on_yesterday.func(), tasks.count_orders.func(days=7)

    assert (nightly["orders"], nightly["revenue"]) == (1, f"{order.quantity * order.unit_price:.2f}")
    assert weekly["orders"] == 12
    assert tasks.count_orders.func(days=0) == {"days": 0, "orders": 0, "revenue": "0.00"}


def test_the_demo_tells_each_firing_once(settings: Any) -> None:
    settings.DJANGO_JOBS = example_settings.DJANGO_JOBS
    Schedule.objects.declare_all()
    before = Schedule.objects.run_now("orders of the week")
    Job.objects.filter(pk=before.id).cancel()
    firings = Firings()
    row = Schedule.objects.get(name="orders of the week")
    job = Job.objects.create(
        task_path=row.task_path, schedule=row, scheduled_for=datetime(2026, 11, 20, 12, tzinfo=UTC)
    )
    unfinished = list(firings.new())
    Job.objects.filter(pk=job.pk).cancel()

    told = firings.first(lambda: None)

    assert (unfinished, told, list(firings.new())) == ([], job, [])
    assert line_of(told) == f"  schedule “orders of the week” fired for 12:00:00 UTC: job {job.pk} cancelled"
