"""Identifiers: UUID version 7 (RFC 9562, 5.7), ordered by time, so that a job's id says when it was made."""

from __future__ import annotations

import os
import time
from datetime import datetime
from uuid import UUID


def uuid7() -> UUID:
    """A new id: 48 bits of Unix milliseconds, then version, variant and 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds << 80) | random
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)


def lower_bound(moment: datetime) -> UUID:
    """The smallest 128-bit value of `moment` (with a time zone): a bound for ranges of ids, not an id itself."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
