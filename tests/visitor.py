"""People who visit the admin in tests, and what they read there."""

from __future__ import annotations

import html
import re
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

JOBS = "/admin/django_jobs/job/"
QUEUES = "/admin/django_jobs/queue/"
SCHEDULES = "/admin/django_jobs/schedule/"
WORKERS = "/admin/django_jobs/worker/"


def superuser() -> Client:
    """Return the browser of somebody who may do everything."""
    return _browser(User.objects.create_superuser("root"))


def staff(*permissions: str) -> Client:
    """Return the browser of a member of the staff with these permissions, such as ``view_job``."""
    user = User.objects.create_user(f"staff of {len(permissions)}", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="django_jobs", codename__in=permissions)
    )
    return _browser(user)


def act(browser: Client, name: str, *rows: Any, at: str = JOBS, **fields: Any) -> list[str]:
    """Select rows in a list, run an action on them and return the messages."""
    data = {"action": name, "_selected_action": [row.pk for row in rows], **fields}
    response = browser.post(at, data, follow=True)
    return messages_of(response)


def press(browser: Client, name: str, row: Any, at: str = JOBS, **fields: Any) -> list[str]:
    """Press a button on a row's page and return the messages."""
    response = browser.post(f"{at}{row.pk}/act/{name}/", fields, follow=True)
    assert response.status_code == 200, response.status_code
    return messages_of(response)


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def text_of(response: Any) -> str:
    """Return what a person reads on a page, without its mark-up, white space in one."""
    assert response.status_code == 200, response.status_code
    source = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", source)))


def rows_of(response: Any) -> list[list[str]]:
    """Return the cells of a list as text, without the check box."""
    table = response.content.decode().partition('id="result_list"')[2].partition("</table>")[0]
    rows = re.findall(r"(?s)<tr\b.*?</tr>", table.partition("<tbody>")[2])
    return [[_plain(cell) for cell in re.findall(r"(?s)<(?:td|th) class=\"field-.*?</(?:td|th)>", row)] for row in rows]


def buttons_of(response: Any) -> list[str]:
    """Return what the buttons of ours on a row's page say."""
    return [str(button.label) for button in response.context["buttons"]]


def log() -> list[tuple[str, str]]:
    """Return the admin's log, oldest first: what it was about and what happened."""
    return [(entry.object_repr, entry.get_change_message()) for entry in LogEntry.objects.order_by("pk")]


def _browser(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


def _plain(cell: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", cell))).strip()
