"""Settings of the test project. DATABASE_URL picks the database; without it, SQLite in a file with no set-up."""

import os
from pathlib import Path

import django
import environ

env = environ.Env()
ROOT = Path(__file__).resolve().parent.parent
# In files, and never in memory: the tests start workers, which are processes of their own.
FILES = ROOT / ".tests"
FILES.mkdir(exist_ok=True)

DATABASE_URL = env.str("DATABASE_URL", default=f"sqlite:///{FILES / 'db.sqlite3'}")
DATABASES = {"default": env.db_url_config(DATABASE_URL)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # With the process id, so that two runs in one checkout do not meet.
    DATABASES["default"]["TEST"] = {"NAME": FILES / f"test-{os.getpid()}.sqlite3"}
    # Seconds to wait for another writer, of which a test has several, on a disk that is busy with other tests.
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("timeout", 30)

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
USE_TZ = True
TIME_ZONE = "UTC"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_jobs",
    "example_project.shop",
    "tests",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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

TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": []}}
DJANGO_JOBS: dict[str, object] = {}

# For the tests of the example shop: its mail server is never busy.
SHOP_MAIL_BUSY_EVERY = 0
