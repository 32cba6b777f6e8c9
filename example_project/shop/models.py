"""An upload of orders, what became of its lines, and the report on them."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.urls import reverse


class Upload(models.Model):
    """A CSV file of orders. Its text is in the database, because a worker may run on another machine."""

    name = models.CharField(max_length=200)
    text = models.TextField()
    lines = models.PositiveIntegerField(help_text="How many lines the file has, with its header.")
    uploaded_at = models.DateTimeField(db_default=Now())
    imported_at = models.DateTimeField(null=True, blank=True)
    job_id = models.BigIntegerField(null=True, blank=True, help_text="The job that imports it.")

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("shop:upload", args=[self.pk])


class Order(models.Model):
    """One good line of an upload."""

    upload = models.ForeignKey(Upload, models.CASCADE, related_name="orders")
    line = models.PositiveIntegerField()
    number = models.CharField(max_length=20)
    ordered_on = models.DateField()
    customer = models.CharField(max_length=100)
    email = models.EmailField()
    country = models.CharField(max_length=60)
    product = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField(validators=[MinValueValidator(1), MaxValueValidator(1000)])
    unit_price = models.DecimalField(max_digits=8, decimal_places=2, validators=[MinValueValidator(0)])
    receipt_sent_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["upload", "line"]
        constraints = [models.UniqueConstraint(fields=["upload", "line"], name="shop_order_line")]

    def __str__(self) -> str:
        return self.number


class RejectedLine(models.Model):
    """A line of an upload that is no order, and why."""

    upload = models.ForeignKey(Upload, models.CASCADE, related_name="rejected_lines")
    line = models.PositiveIntegerField()
    problem = models.CharField(max_length=300)

    class Meta:
        ordering = ["upload", "line"]
        constraints = [models.UniqueConstraint(fields=["upload", "line"], name="shop_rejected_line")]

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"


class SalesReport(models.Model):
    """What the orders of an upload come to."""

    upload = models.OneToOneField(Upload, models.CASCADE, related_name="report")
    made_at = models.DateTimeField(db_default=Now())
    orders = models.PositiveIntegerField()
    revenue = models.DecimalField(max_digits=14, decimal_places=2)
    best_sellers = models.JSONField(default=list)
    countries = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"report on {self.upload_id}"
