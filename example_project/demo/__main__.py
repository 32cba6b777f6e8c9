"""The demo: ``python -m example_project.demo``.

Starts everything, uploads the sample of 5,000 orders through the page as a person would, shows how the jobs
get on and sums up what ran. With a terminal it goes on until Ctrl-C; without, it ends by itself, with exit
code 0 only if every job of this run succeeded and a schedule has fired. The data stay in ``.demo/``, so that a second run goes on with them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import django
from django.core.management import call_command

from django_jobs.states import JobState

from ..postgres import PostgresFailed, running_postgres
from .browser import Browser
from .processes import MARKER, ChildEnded, Children, end_leftovers, free_port

if TYPE_CHECKING:
    from .firings import Firings

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "example_project" / "data" / "orders-5000.csv"
NAME = PASSWORD = "admin"


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            return run(stack)
    except KeyboardInterrupt:
        say("\nStopped before the import was done.")
        return 130
    except (PostgresFailed, ChildEnded, TimeoutError) as error:
        say(f"\nThe demo failed. {error}")
        return 1


def run(stack: ExitStack) -> int:
    """Start everything, import the sample, and stay as long as somebody looks."""
    files = directory_for_files(stack)
    say(f"Starting PostgreSQL. Everything is kept in {files}; delete it to start afresh.")
    os.environ["DATABASE_URL"] = stack.enter_context(running_postgres(files / "postgres"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    os.environ["SHOP_FILES"] = os.environ[MARKER] = str(files)
    # Now that the data are ours: nobody else uses them, and a demo that was killed may have left its processes.
    end_leftovers(str(files))
    prepare_database()
    children = stack.enter_context(Children(ROOT, files))
    port = free_port(preferred=8000)
    children.start("runserver", f"127.0.0.1:{port}", "--noreload")
    children.start("runworker", "--processes=2")
    browser = Browser(f"http://127.0.0.1:{port}")
    browser.wait_until_there(children.check)
    return import_sample(browser, children, files)


def import_sample(browser: Browser, children: Children, files: Path) -> int:
    """Upload the sample, follow it to its end, sum up; return the exit code."""
    # Only now, because models can be imported only after django.setup().
    from .firings import Firings, line_of
    from .progress import Progress

    progress, firings = Progress(), Firings()
    page = browser.upload(SAMPLE)
    introduce(browser.address, page, files)
    for line in progress.lines(page, children.check):
        say(line)
    say(progress.summary())
    say("\nA schedule fires each minute:")
    job = firings.first(children.check)
    say(line_of(job))
    code = 0 if progress.is_all_well() and job.state == JobState.SUCCEEDED else 1
    if is_watched():
        say("\nThe shop stays open: upload a file of your own. Ctrl-C stops everything.")
        children.wait_for_interrupt(meanwhile=lambda: tell(firings))
        say("\nStopping; the worker finishes the jobs that it runs.")
    return code


def directory_for_files(stack: ExitStack) -> Path:
    """Return ``.demo`` in the checkout, or a temporary directory where the checkout cannot be written to."""
    files = ROOT / ".demo"
    with suppress(OSError):
        files.mkdir(exist_ok=True)
    if not os.access(files, os.W_OK):
        files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="django-jobs-demo-")))
    # 5,000 e-mails a run: only those of this run stay.
    shutil.rmtree(files / "mail", ignore_errors=True)
    return files


def prepare_database() -> None:
    """Bring the database up to date, with an administrator."""
    django.setup()
    from django.contrib.auth import get_user_model

    call_command("migrate", verbosity=0)
    administrator, _ = get_user_model().objects.get_or_create(
        username=NAME, defaults={"is_staff": True, "is_superuser": True}
    )
    administrator.set_password(PASSWORD)
    administrator.save(update_fields=["password"])


def introduce(address: str, page: str, files: Path) -> None:
    jobs = f"{address}/admin/django_jobs"
    say(f"""
  Shop    {address}/
  Import  {page}
  Admin   {address}/admin/  (user {NAME}, password {PASSWORD})

  What to look at:
  {page}
      the import, live
  {jobs}/job/
      the jobs; one in 500 receipts found the mail server busy at its first try: its page shows that attempt
  {jobs}/queue/
      the queues imports, receipts and reports: what waits in them, pause and resume
  {jobs}/schedule/
      a report each night and a count of the orders each minute: when they run next and how the last runs went
  {jobs}/worker/
      two workers and their supervisor
  {files / "mail"}
      the receipts
  {files / "runworker.log"}
      what the workers say
""")


def is_watched() -> bool:
    """Say whether somebody sits at a terminal, who can press Ctrl-C."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def tell(firings: Firings) -> None:
    """Say which schedules have fired since the last time."""
    from .firings import line_of

    for job in firings.new():
        say(line_of(job))


def say(text: str) -> None:
    print(text, flush=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
