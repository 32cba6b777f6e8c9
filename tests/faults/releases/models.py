"""What the code of the release with more columns knows of our tables: as ``columns/0002_more.py`` makes them."""

from __future__ import annotations

from django.db import models

from django_jobs.models import Attempt, Job, Lease, Queue, Result, Worker

Job.add_to_class("note", models.TextField(null=True))
for _model in (Worker, Queue, Job, Attempt, Result, Lease):
    _model.add_to_class("weight", models.IntegerField(db_default=7))


class Extra(models.Model):
    name = models.CharField(max_length=20)

    class Meta:
        app_label = "django_jobs"

    def __str__(self) -> str:
        return self.name
