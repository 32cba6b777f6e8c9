"""What the jobs of every peer do. Runs in the peer's worker, so it imports the standard library only.

A job counts itself. The first one of a process, and then each ``BENCH_STEP``-th, tells the benchmark how many
have started and when, with one datagram to ``BENCH_PORT``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import time
from typing import Any

NAP = 0.01  # seconds

_ADDRESS = ("127.0.0.1", int(os.environ.get("BENCH_PORT", "0")))
_STEP = int(os.environ.get("BENCH_STEP", "1000"))
_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
# next() of it is atomic: jobs run in several threads.
_numbers = itertools.count(1)


def noop() -> None:
    """Count, and nothing else: what is left is the cost of the queue."""
    number = next(_numbers)
    if number == 1 or number % _STEP == 0:
        _tell(pid=os.getpid(), count=number)


def stamp(number: int) -> None:
    """Tell when this job has started."""
    _tell(number=number)


def nap() -> None:
    """Wait as a job does that talks to somebody else."""
    noop()
    time.sleep(NAP)


async def nap_async() -> None:
    noop()
    await asyncio.sleep(NAP)


def _tell(**report: Any) -> None:
    _socket.sendto(json.dumps(report | {"at": time.time()}).encode(), _ADDRESS)
