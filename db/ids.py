"""Identifiers: UUID version 7 (RFC 9562, 5.7), ordered by time, so that a job's id says when it was made."""

from __future__ import annotations

import os
import time
from datetime import datetime
from uuid import UUID


def uuid7() -> UUID:
    """A new id: 48 bits of Unix milliseconds, 12 bits of their fraction (RFC 9562, 6.2, method 3), 62 random bits.

    The fraction (steps of 0.24 µs) orders the ids that one process makes within a millisecond.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | rest * 4096 // 1_000_000 << 64 | 0x2 << 62 | random)


def lower_bound(moment: datetime) -> UUID:
    """The smallest 128-bit value of `moment` (with a time zone): a bound for ranges of ids, not an id itself."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
