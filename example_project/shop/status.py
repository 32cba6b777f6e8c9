"""How far an import is, for the page and its JSON."""

from __future__ import annotations

from typing import Any

from django.db.models import Count

from django_jobs.models import Job

from .models import SalesReport, Upload

SHOWN_PROBLEMS = 50


def status_of(upload: Upload) -> dict[str, Any]:
    """Return the counts and the state of everything that belongs to an upload.

    ``state`` is that of the import's job, or "pruned" when the job has been deleted since.
    """
    job = Job.objects.filter(pk=upload.job_id or 0).values("state", "progress").first()
    progress = (job and job["progress"]) or {}
    orders = upload.orders.aggregate(stored=Count("pk"), receipts=Count("receipt_sent_at"))
    report = SalesReport.objects.filter(upload=upload).first()
    return {
        "state": job["state"] if job else "pruned",
        "message": progress.get("message", ""),
        "lines": {"done": upload.lines if upload.imported_at else progress.get("done", 0), "total": upload.lines},
        "receipts": {"done": orders["receipts"], "total": orders["stored"]},
        "rejected": upload.rejected_lines.count(),
        "problems": [str(line) for line in upload.rejected_lines.all()[:SHOWN_PROBLEMS]],
        "report": report and _report(report),
        "done": report is not None or bool(job and job["state"] in ("failed", "cancelled")),
    }


def _report(report: SalesReport) -> dict[str, Any]:
    return {
        "orders": report.orders,
        "revenue": f"{report.revenue:,.2f}",
        "best_sellers": [f"{row['product']}: {row['pieces']} pieces, {row['revenue']}" for row in report.best_sellers],
        "countries": [f"{row['country']}: {row['orders']} orders, {row['revenue']}" for row in report.countries],
    }
