"""How much memory a scoring child may have: the kernel refuses it more, so that one row cannot take the machine's.

The limit is on what the process has reserved for data (`RLIMIT_DATA`, setrlimit(2)), not on what it has touched: Arrow's
allocator reserves a GiB of address space at a time.
"""

from __future__ import annotations

import gc
import resource
from contextlib import suppress
from pathlib import Path

import psutil

from settings import Settings

_MIB = 1 << 20
#: A child with models and Arrow's reservation needs so much before it scores anything large.
LEAST_MIB = 2048
# Version 2 and 1 of control groups, as a container sees its own.
_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SPENT = 0.75


def bound(settings: Settings) -> None:
    """Set the limit of this process and of those that it starts; what exceeds it gets a MemoryError."""
    limit = limit_mib(settings) * _MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def limit_mib(settings: Settings) -> int:
    """What the settings say, or half of what the machine or the control group has, and enough to work with."""
    return settings.worker_memory_mib or max(LEAST_MIB, _machine() // 2 // _MIB)


def is_spent(settings: Settings) -> bool:
    """Whether what this process holds on to, and not what it was asked to score, takes most of its memory."""
    gc.collect()
    held: int = psutil.Process().memory_info().data
    return held > _SPENT * limit_mib(settings) * _MIB


def _machine() -> int:
    """Bytes."""
    found = [psutil.virtual_memory().total]
    for path in _GROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            found.append(int(Path(path).read_text()))
    return min(found)
