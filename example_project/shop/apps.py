"""The Django app. Its tasks, in ``tasks.py``, are found by django_jobs itself."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "example_project.shop"
    label = "shop"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Shop"
