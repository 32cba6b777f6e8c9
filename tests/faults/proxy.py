"""A TCP proxy that can stop forwarding without closing: what a firewall does that forgot a connection.

Each connection between a worker and the server is a ``Line``, known by what its client has said. Both ends see a peer
that acknowledges every packet and says nothing.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

REQUESTS, ANSWERS = "requests", "answers"
BOTH = (REQUESTS, ANSWERS)
# What only this kind of connection says.
MARKS = {
    "listener": b"LISTEN django_jobs",
    "exchange": b"WITH done AS",
    "heartbeat": b'"django_jobs_worker" SET "last_seen"',
    "leader": b'UPDATE "django_jobs_lease"',
    "job": b"auth_group",
}
_REMEMBERED = 1_000_000


class Line:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket, number: int) -> None:
        self.number = number
        self._client, self._server = client, server
        self._said = b""
        self._open = {direction: threading.Event() for direction in BOTH}
        self.is_closed = threading.Event()
        for event in self._open.values():
            event.set()

    def start(self) -> None:
        for direction, source, target in (
            (REQUESTS, self._client, self._server),
            (ANSWERS, self._server, self._client),
        ):
            threading.Thread(target=self._pump, args=(direction, source, target), daemon=True).start()

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, mark in MARKS.items() if mark in self._said}

    def hold(self, *directions: str) -> None:
        """Forward nothing more, and close nothing."""
        for direction in directions or BOTH:
            self._open[direction].clear()

    def let_go(self) -> None:
        for event in self._open.values():
            event.set()

    def close(self) -> None:
        self.is_closed.set()
        self.let_go()
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pump(self, direction: str, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if direction == REQUESTS and len(self._said) < _REMEMBERED:
                    self._said += data
                self._open[direction].wait()
                target.sendall(data)
        # The end of one direction is passed on as little as its bytes.
        self._open[direction].wait()
        self.close()


class Proxy:
    """Listens on a port of its own and forwards to the server of a database URL."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._upstream = (address.hostname, address.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        credentials = address.netloc.rpartition("@")[0]
        self.url = address._replace(netloc=f"{credentials}@{host}" if credentials else host).geturl()
        self._lines: list[Line] = []
        # Directions in which new connections are held, too.
        self._held: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._lines:
            line.close()

    def lines(self, kind: str | None = None) -> list[Line]:
        """Return the open lines, or those of one kind, in the order in which they were made."""
        lines = [line for line in list(self._lines) if not line.is_closed.is_set()]
        return [line for line in lines if kind is None or kind in line.kinds]

    def hold_all(self, *directions: str) -> None:
        """Forward nothing of any connection, nor of those to come."""
        self._held = directions or BOTH
        for line in self.lines():
            line.hold(*self._held)

    def cut_all(self) -> None:
        """Close every line, and forward new ones."""
        self._held = ()
        for line in self.lines():
            line.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = self._connect()
                except OSError:
                    client.close()
                    continue
                line = Line(client, server, len(self._lines))
                if self._held:
                    line.hold(*self._held)
                self._lines.append(line)
                line.start()

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._upstream, timeout=None)
