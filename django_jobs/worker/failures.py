"""What went wrong, as text that any database can store: cleaned, cut, and with a fingerprint."""

from __future__ import annotations

import hashlib
import os
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

from ..outcomes import Failure

LONGEST_MESSAGE = 10_000
LONGEST_TRACEBACK = 50_000

_CUT = "[... cut ...]\n"
_OURS = str(Path(__file__).resolve().parent.parent)
# With the separator: a project may stand beside ours with a name that begins as ours.
_NOT_THE_PROJECT = tuple(
    path + os.sep for path in {*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), _OURS}
)


def describe_failure(error: BaseException) -> Failure:
    """Return what the history keeps of an exception. Never raises, whatever the exception's own code does."""
    cls = type(error)
    path = f"{cls.__module__}.{cls.__qualname__}"
    return Failure(
        exception_class=clean_text(path)[:255],
        message=clean_text(_text_of(error)[:LONGEST_MESSAGE]),
        traceback=_traceback_of(error),
        fingerprint=fingerprint(path, error.__traceback__),
    )


def clean_text(text: str) -> str:
    """Return the text without NUL and lone surrogates, which databases refuse."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def fingerprint(class_path: str, trace: TracebackType | None) -> str:
    """Return the same 32 hex digits for errors of one class from one function of the project."""
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if not place or not code.co_filename.startswith(_NOT_THE_PROJECT):
            place = f"{trace.tb_frame.f_globals.get('__name__', code.co_filename)}:{code.co_qualname}"
        trace = trace.tb_next
    return hashlib.sha256(f"{class_path}|{place}".encode(errors="replace")).hexdigest()[:32]


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as second:  # noqa: BLE001
        # Somebody's __str__ is broken; the job failed all the same, and says so.
        return f"<str() of the exception raised {type(second).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException as second:  # noqa: BLE001
        text = f"<the traceback could not be formatted: {type(second).__name__}>"
    if len(text) > LONGEST_TRACEBACK:
        # The end says what was raised and where.
        text = _CUT + text[-(LONGEST_TRACEBACK - len(_CUT)) :]
    return clean_text(text)
