"""The socket of a client, whose reads and writes end when the client is too slow: it may not keep a thread for ever.

A client has patience to spend: `stall_seconds` of it when a request begins. Each second that we wait for it costs a
second, and each `min_bytes_per_second` bytes that pass give one back. So a client may pause, and may be slow, but not
both for long; what our own work takes costs it nothing.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# How often a wait looks at the patience that is left.
_TICK_SECONDS = 0.25
_SEND_BYTES = 128 * 1024
# Closing then drops what was not sent yet, instead of leaving it to the kernel for a client that does not take it.
_DROP_THE_REST = struct.pack("ii", 1, 0)


class TooSlow(ConnectionResetError):
    """The client sends or takes less than it has to; gunicorn treats it as one that went away."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.ECONNRESET, what)


@dataclass(frozen=True)
class Pace:
    """How slow the clients of a process may be.

    `blocked_writes` are places for threads that stand in a write because the client does not read. Whoever was admitted
    as long-lived (`api/places.py`) needs none.
    """

    stall_seconds: float
    bytes_per_second: int
    blocked_writes: threading.BoundedSemaphore

    def seconds_for(self, size: int) -> float:
        return size / self.bytes_per_second


class PacedSocket(socket.socket):
    """Blocks between `begin` and the end of a request; else the poller has it, and it does not."""

    pace: Pace
    admitted: bool
    _patience: float

    @classmethod
    def of(cls, client: socket.socket, pace: Pace) -> PacedSocket:
        """The same connection; `client` is closed."""
        paced = cls(fileno=client.detach())
        paced.pace, paced.admitted, paced._patience = pace, False, pace.stall_seconds
        return paced

    def begin(self) -> None:
        """Another request: the client has all its patience again."""
        self.admitted, self._patience = False, self.pace.stall_seconds
        self.settimeout(_TICK_SECONDS)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As of any socket.

        Raises:
            TooSlow
        """
        while True:
            began = time.monotonic()
            try:
                data = super().recv(size, flags)
            except TimeoutError:
                self._spend(began, "sends")
                continue
            self._earn(began, len(data), "sends")
            return data

    def recv_now(self, size: int) -> bytes:
        """What is there, for the poller: nobody waits, so nothing is counted."""
        return super().recv(size)

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """As of any socket, but to wait for more than a moment needs a place.

        Raises:
            TooSlow: also when all places are taken.
        """
        view, placed = memoryview(data), False
        try:
            while view:
                began = time.monotonic()
                try:
                    sent = self.send(view[:_SEND_BYTES], flags)
                except TimeoutError:
                    self._spend(began, "takes")
                    placed = placed or self._take_place()
                    continue
                self._earn(began, sent, "takes")
                view = view[sent:]
        finally:
            if placed:
                self.pace.blocked_writes.release()

    def _take_place(self) -> bool:
        """Whether one was needed."""
        if self.admitted:
            return False
        if not self.pace.blocked_writes.acquire(blocking=False):
            raise self._too_slow("takes")
        return True

    def _spend(self, began: float, what: str) -> None:
        self._patience -= time.monotonic() - began
        if self._patience <= 0:
            raise self._too_slow(what)

    def _earn(self, began: float, size: int, what: str) -> None:
        self._patience = min(self._patience + self.pace.seconds_for(size), self.pace.stall_seconds)
        self._spend(began, what)

    def _too_slow(self, what: str) -> TooSlow:
        if what == "takes":
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_THE_REST)
        return TooSlow(f"the client {what} less than {self.pace.bytes_per_second:,} bytes per second")
