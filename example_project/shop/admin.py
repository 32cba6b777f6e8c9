"""The shop's rows in the admin."""

from django.contrib import admin

from .models import Order, RejectedLine, SalesReport, Upload


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin):
    list_display = ["name", "uploaded_at", "imported_at", "lines", "job_id"]
    exclude = ["text"]
    readonly_fields = ["uploaded_at", "imported_at", "lines", "job_id"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["number", "ordered_on", "customer", "product", "quantity", "unit_price", "receipt_sent_at"]
    list_filter = ["country"]
    search_fields = ["number", "customer", "email"]
    raw_id_fields = ["upload"]


@admin.register(RejectedLine)
class RejectedLineAdmin(admin.ModelAdmin):
    list_display = ["upload", "line", "problem"]
    raw_id_fields = ["upload"]


@admin.register(SalesReport)
class SalesReportAdmin(admin.ModelAdmin):
    list_display = ["upload", "made_at", "orders", "revenue"]
    raw_id_fields = ["upload"]
