"""The end of a process that has run jobs: none of their threads may keep it."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End this process with its output written, also while a job hangs in its thread."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def is_kept() -> bool:
    """Say whether Python would wait at the end for a thread that a job has left behind."""
    return any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate())
