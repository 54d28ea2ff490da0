"""Who owns a claim: the host, its process namespace, the process and when it began.

    web-3/4026531836:1234/1763836800.12

The part before the first colon names the place where `1234` means something, so that a worker there, and only there,
can tell that the owner is dead without waiting for its lease.
"""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path

import psutil


@cache
def place() -> str:
    """This host and process namespace; containers on one host differ in it, also when they share the host's name."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()}/{namespace}"


def owner(pid: int, created: float) -> str:
    return f"{place()}:{pid}/{created:.2f}"


def is_dead(name: str) -> bool:
    """Whether the owner was a process of this place and is gone."""
    where, _, process = name.rpartition(":")
    if where != place():
        return False
    pid, _, created = process.partition("/")
    try:
        running = psutil.Process(int(pid))
        return f"{running.create_time():.2f}" != created or running.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
