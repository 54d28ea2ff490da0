"""Clients that mean harm by being slow: heads and bodies by the byte, results that nobody reads, bodies without an end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

# Long enough for a body that never is a short one.
ANNOUNCED_BYTES = 1_000_000
HEADER = b"id,amount,visits,segment,active,note\n"
LINE = b"held,1.5,3,gold,true,fine\n"


class SlowClients:
    """So many connections, each of which sends `begin` and then a byte of `rest` at every tick, for ever.

    A connection that the server has ended is made again. `refused` counts those ends.
    """

    def __init__(self, url: str, count: int, begin: bytes, rest: bytes, *, tick: float = 1.0) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._begin, self._rest, self._tick = begin, rest, tick
        self._clients: list[socket.socket | None] = [None] * count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self.refused = 0

    @property
    def connected(self) -> int:
        return sum(client is not None for client in self._clients)

    @contextmanager
    def running(self) -> Iterator[SlowClients]:
        """All of them are connected when the block begins."""
        self._send(0)
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()
            for client in filter(None, self._clients):
                client.close()

    def _repeat(self) -> None:
        number = 0
        while not self._ended.wait(self._tick):
            number += 1
            self._send(number)

    def _send(self, number: int) -> None:
        for place, client in enumerate(self._clients):
            try:
                if client is None:
                    self._clients[place] = self._connected()
                else:
                    client.send(self._rest[number % len(self._rest) :][:1])
                    self._check(client)
            except OSError:
                self.refused += 1
                self._clients[place] = None
                if client is not None:
                    client.close()

    def _connected(self) -> socket.socket:
        client = socket.create_connection(self._address, timeout=5)
        client.sendall(self._begin)
        client.setblocking(False)
        return client

    def _check(self, client: socket.socket) -> None:
        with suppress(BlockingIOError):
            if not client.recv(65_536):
                raise ConnectionResetError


def slow_heads(url: str, count: int) -> SlowClients:
    return SlowClients(url, count, b"GET /health/live HTTP/1.1\r\n", b"X-Slow: 1\r\n")


def slow_bodies(url: str, count: int, token: str, model: str) -> SlowClients:
    """Uploads of a file, of which the header row comes at once."""
    return SlowClients(url, count, upload_head(token, model, f"Content-Length: {ANNOUNCED_BYTES}") + HEADER, LINE)


def upload_head(token: str, model: str, framing: str) -> bytes:
    return (
        f"POST /v1/jobs?model={model} HTTP/1.1\r\nHost: scorehouse\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: text/csv\r\n{framing}\r\n\r\n"
    ).encode()


class EndlessBody:
    """One upload of rows for ever, as fast as they are taken, up to `most` bytes; `sent` counts them."""

    def __init__(self, url: str, token: str, model: str, most: int) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._head = upload_head(token, model, "Transfer-Encoding: chunked")
        self._most = most
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.sent = 0
        self.answer = b""

    @contextmanager
    def running(self) -> Iterator[EndlessBody]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()

    def _send(self) -> None:
        rows = LINE * 2_000
        chunk = f"{len(rows):x}\r\n".encode() + rows + b"\r\n"
        with socket.create_connection(self._address, timeout=30) as client:
            client.sendall(self._head + f"{len(HEADER):x}\r\n".encode() + HEADER + b"\r\n")
            try:
                while not self._ended.is_set() and self.sent < self._most:
                    client.sendall(chunk)
                    self.sent += len(rows)
            except OSError:
                with suppress(OSError):
                    self.answer = client.recv(65_536)
