"""The pages: upload a file, watch its import."""

from __future__ import annotations

from pathlib import Path

from django.contrib import messages
from django.db import transaction
from django.db.models import Count
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from .forms import UploadForm
from .models import Upload
from .order_lines import count_lines
from .status import status_of
from .tasks import import_orders

SAMPLES = Path(__file__).resolve().parent.parent / "data"


@require_http_methods(["GET", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """Show the form and the latest uploads; take an upload and go to its page."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        upload = receive(form.cleaned_data["file"].name, form.cleaned_data["text"])
        messages.success(request, f"{upload.name} is being imported.")
        return redirect(upload)
    uploads = Upload.objects.defer("text").annotate(order_count=Count("orders"))[:20]
    samples = [path.name for path in sorted(SAMPLES.glob("*.csv"))]
    status = 400 if form.errors else 200
    return render(request, "shop/home.html", {"form": form, "uploads": uploads, "samples": samples}, status=status)


def receive(name: str, text: str) -> Upload:
    """Store an upload and enqueue its import: both, or neither."""
    with transaction.atomic():
        upload = Upload.objects.create(name=name[:200], text=text, lines=count_lines(text))
        upload.job_id = int(import_orders.enqueue(upload.pk).id)
        upload.save(update_fields=["job_id"])
    return upload


@require_GET
def sample(request: HttpRequest, name: str) -> FileResponse:
    """Hand out one of the sample files."""
    path = SAMPLES / name
    if path.suffix != ".csv" or path not in SAMPLES.glob("*.csv"):
        raise Http404(f"There is no sample {name}.")
    return FileResponse(path.open("rb"), as_attachment=True, content_type="text/csv")


@require_GET
def upload(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one upload; the page keeps itself up to date with ``upload_status``."""
    found = get_object_or_404(Upload.objects.defer("text"), pk=pk)
    return render(request, "shop/upload.html", {"upload": found, "status": status_of(found)})


@require_GET
@never_cache
def upload_status(request: HttpRequest, pk: int) -> JsonResponse:
    """Return how far the import is, as JSON."""
    return JsonResponse(status_of(get_object_or_404(Upload.objects.defer("text"), pk=pk)))
