"""Settings of the example shop, from the environment by django-environ. DATABASE_URL picks the database.

For your own machine: DEBUG is on and the secret key is known. See the comments for what to set elsewhere.
"""

from pathlib import Path

import django
import environ

env = environ.Env()
ROOT = Path(__file__).resolve().parent.parent
# Where the shop keeps its files: the SQLite database and the e-mails.
FILES = env.path("SHOP_FILES", default=str(ROOT / ".demo"))
Path(FILES).mkdir(parents=True, exist_ok=True)

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env.str("SECRET_KEY", default="known to everybody: set SECRET_KEY anywhere but on your own machine")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost"])
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
STATIC_URL = "/static/"
USE_TZ = True
TIME_ZONE = "UTC"

DATABASES = {"default": env.db_url("DATABASE_URL", default=f"sqlite:///{FILES}/shop.sqlite3")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # SQLite has one writer at a time. Readers do not wait for it (WAL), writers wait their turn (timeout), and a
    # transaction takes its turn when it begins (IMMEDIATE): one that began by reading could not get it later.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    # The development server has a new thread, and so a new connection, for each request: it could not keep any.
    DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", default=0 if DEBUG else 60)
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_jobs",
    "example_project.shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Receipts are written to files, one each.
_MAIL = {"BACKEND": "django.core.mail.backends.filebased.EmailBackend", "FILES": f"{FILES}/mail"}
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": _MAIL["BACKEND"], "OPTIONS": {"file_path": _MAIL["FILES"]}}}
else:
    EMAIL_BACKEND = _MAIL["BACKEND"]
    EMAIL_FILE_PATH = _MAIL["FILES"]
DEFAULT_FROM_EMAIL = "The Hill Road Shop <orders@hillroad.example>"

# Every queue is allowed ("QUEUES": []); django_jobs makes those that the tasks name.
TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": []}}
DJANGO_JOBS = {
    "APP_VERSION": "example shop 1.0",
    "SCHEDULES": {
        # By the shop's clock, also on the days on which it changes.
        "nightly report": {
            "task": "shop.nightly_report",
            "cron": "30 2 * * *",
            "timezone": "Europe/Paris",
            "catch_up": "latest",
        },
        "orders of the week": {
            "task": "shop.count_orders",
            "kwargs": {"days": 7},
            "cron": "* * * * *",
            "overlap": "skip",
        },
    },
}

# Django's own framework logs a line for every job that starts and ends; the worker tells what is worth knowing.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"django.tasks": {"level": "WARNING"}, "django_tasks": {"level": "WARNING"}},
}

# The mail server of the shop is busy at the first try of every so manieth receipt, so that there are retries to
# look at; 0 switches that off.
SHOP_MAIL_BUSY_EVERY = env.int("SHOP_MAIL_BUSY_EVERY", default=500)
