"""The table of the jobs that use the ORM."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F

ITEMS = 1000


class Item(models.Model):
    code = models.CharField(max_length=20, unique=True)
    stock = models.IntegerField(default=0)

    objects: ClassVar[models.Manager[Item]] = models.Manager()

    class Meta:
        app_label = "shelf"

    def __str__(self) -> str:
        return self.code


def fill() -> None:
    Item.objects.bulk_create(Item(code=f"item-{number}") for number in range(ITEMS))


def take_one(number: int) -> None:
    """Do one indexed SELECT and one UPDATE."""
    item = Item.objects.get(code=f"item-{number % ITEMS}")
    Item.objects.filter(pk=item.pk).update(stock=F("stock") - 1)
