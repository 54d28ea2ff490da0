"""What processes have used so far: seconds of CPU and bytes handed to the disk, of their heads and all below them."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Usage:
    """`written` leaves out what a process wrote that is gone."""

    cpu: float = 0.0
    written: int = 0

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(self.cpu - earlier.cpu, self.written - earlier.written)

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu + other.cpu, self.written + other.written)


def of_trees(pids: Iterable[int]) -> Usage:
    """Of running processes and all below them; those below that have ended count as their parents waited for them."""
    total = Usage()
    for head in (psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)):
        for process in (head, *head.children(recursive=True)):
            with suppress(psutil.NoSuchProcess), process.oneshot():
                total += Usage(sum(process.cpu_times()[:4]), process.io_counters().write_bytes)
    return total


def of_ended_children() -> Usage:
    """Of processes that this one started and waited for, CPU only."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(used.ru_utime + used.ru_stime)
