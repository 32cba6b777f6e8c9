"""Settings of the test project. DATABASE_URL picks the database; SQLite in a file without it."""

import environ

env = environ.Env()
SECRET_KEY = "not a secret"
USE_TZ = True
DATABASES = {"default": env.db_url("DATABASE_URL", default="sqlite:////tmp/dj.sqlite3")}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_jobs", "tests"]
TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": []}}
