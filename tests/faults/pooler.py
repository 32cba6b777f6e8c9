"""A pooler in transaction mode, as small as can be: each transaction of a client gets one of a few server connections.

It speaks just enough of PostgreSQL's protocol. A client's startup is answered by us, with a process number of our own, as
PgBouncer does. Each transaction takes the server connection that has been idle for longest, so that two in a row rarely meet
the same one; it goes back when the server says that it is idle outside of a transaction. What a session was told with SET,
PREPARE or LISTEN stays with the server connection, and that is the trouble with poolers.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
import threading
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import psycopg

_SSL, _GSS = 80877103, 80877104
_STARTED = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "standard_conforming_strings",
    "TimeZone",
    "DateStyle",
)
_READY, _IDLE = b"Z", b"I"
# The client's messages after which the server says that it is ready.
_QUERY, _SYNC, _TERMINATE = b"Q", b"S", b"X"


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


class _Stream:
    """One end of a connection, read message by message."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._line.recv(count - len(data))
            if not more:
                raise ConnectionError("the other end has gone")
            data += more
        return data

    def message(self) -> tuple[bytes, bytes]:
        """Return the kind of the next message, and all of it."""
        head = self.exactly(5)
        return head[:1], head + self.exactly(struct.unpack("!i", head[1:])[0] - 4)

    def send(self, data: bytes) -> None:
        self._line.sendall(data)


class _Server:
    """One connection to the server, opened by the driver and then used past it."""

    def __init__(self, url: str) -> None:
        # Without TLS, whose bytes nobody could read past the driver.
        self._connection = psycopg.connect(url, autocommit=True, sslmode="disable")
        self.parameters = {name: self._connection.info.parameter_status(name) for name in _STARTED}
        self._line = socket.socket(fileno=os.dup(self._connection.fileno()))
        self._line.setblocking(True)
        self.stream = _Stream(self._line)
        self.pid = self._connection.info.backend_pid

    def close(self) -> None:
        self._line.close()
        self._connection.close()


class Pooler:
    """Listens on a port of its own, and shares ``size`` connections to the server of a database URL."""

    def __init__(self, url: str, size: int = 3, port: int = 0) -> None:
        self._url = url
        self._size = size
        self._idle: SimpleQueue[_Server] = SimpleQueue()
        self._servers: list[_Server] = []
        self._clients: list[socket.socket] = []
        # Servers are added and closed under it, so that none is left behind at the end.
        self._lock = threading.Lock()
        self._is_open = True
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        for _ in range(self._size):
            self._add_server()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._is_open = False
            for server in self._servers:
                server.close()

    def _add_server(self) -> None:
        with self._lock:
            if self._is_open:
                server = _Server(self._url)
                self._servers.append(server)
                self._idle.put(server)

    def _drop(self, server: _Server) -> None:
        with self._lock:
            if self._is_open:
                self._servers.remove(server)
                server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ConnectionError), client:
            stream = _Stream(client)
            if self._welcome(stream):
                while self._transaction(stream):
                    pass

    def _welcome(self, client: _Stream) -> bool:
        while True:
            (length,) = struct.unpack("!i", client.exactly(4))
            (code,) = struct.unpack("!i", client.exactly(length - 4)[:4])
            if code not in (_SSL, _GSS):
                break
            client.send(b"N")
        if code != 196608:
            # A request to cancel: not for us.
            return False
        answer = _message(b"R", struct.pack("!i", 0))
        for name, value in self._servers[0].parameters.items():
            answer += _message(b"S", f"{name}\0{value}\0".encode())
        answer += _message(b"K", struct.pack("!i", secrets.randbelow(2**31)) + secrets.token_bytes(4))
        client.send(answer + _message(_READY, _IDLE))
        return True

    def _transaction(self, client: _Stream) -> bool:
        """Pass on one transaction of a client; False when the client has left."""
        kind, message = client.message()
        if kind == _TERMINATE:
            return False
        server = self._idle.get()
        is_idle = False
        try:
            is_idle = self._until_idle(client, server.stream, kind, message)
        finally:
            if is_idle:
                self._idle.put(server)
            else:
                # It was left inside a transaction.
                self._drop(server)
                self._add_server()
        return True

    def _until_idle(self, client: _Stream, server: _Stream, kind: bytes, message: bytes) -> bool:
        while True:
            server.send(message)
            if kind in (_QUERY, _SYNC) and _pass_answer(server, client) == _IDLE:
                return True
            kind, message = client.message()
            if kind == _TERMINATE:
                return False


def _pass_answer(server: _Stream, client: _Stream) -> bytes:
    """Pass on the server's messages until it is ready; return the state of its transaction."""
    while True:
        kind, message = server.message()
        client.send(message)
        if kind == _READY:
            return message[-1:]
