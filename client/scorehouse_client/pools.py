"""Connections that suit uploads: patient while the API takes them, and quick to notice that it will not."""

from __future__ import annotations

from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.wait import wait_for_read, wait_for_socket

# A block may have to wait for the API to store those before it.
SEND_SECONDS = 120.0


class _Connection(HTTPConnection):
    """Stops sending as soon as an answer is there: an API that refuses an upload does so long before its end."""

    _cut = False

    def connect(self) -> None:
        self._cut = False
        super().connect()

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(SEND_SECONDS)
        left = memoryview(data)
        while left:
            # An API that has answered may have stopped reading, so waiting to send alone could be for ever.
            if not wait_for_socket(self.sock, read=True, write=True, timeout=SEND_SECONDS):
                raise TimeoutError(f"the API took nothing for {SEND_SECONDS:.0f} s")
            if wait_for_read(self.sock, timeout=0.0):
                self._cut = True
                # urllib3 takes this as the sign to read the answer.
                raise BrokenPipeError("the API answered before the end of the request")
            left = left[self.sock.send(left) :]

    @property
    def is_connected(self) -> bool:
        """Not after half a request: the API would take the next one for the rest of it."""
        return not self._cut and super().is_connected


class _SecureConnection(HTTPSConnection):
    """With TLS a readable socket need not mean an answer (session tickets), so it is sent until the API closes."""

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(SEND_SECONDS)
        super().send(data)


class Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
