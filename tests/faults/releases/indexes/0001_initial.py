"""The migration of this release."""

from importlib import import_module

Migration = import_module("django_jobs.migrations.0001_initial").Migration
