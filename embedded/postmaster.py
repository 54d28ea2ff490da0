"""The processes of a Postgres on a data folder, by its pid file: who runs, who only seems to, and who is left over."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil


def end_orphans(data: Path) -> None:
    """Kill the backends of a postmaster that is dead: one in the middle of a long query has not noticed yet.

    They hold the shared memory of a server that crashed, so recovery has to wait for them and needs nothing of them.
    """
    postmaster = recorded_pid(data)
    if postmaster is None or works_in(postmaster, data):
        return
    for pid in psutil.pids():
        if works_in(pid, data):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def recorded_pid(data: Path) -> int | None:
    """The postmaster that the pid file names; it may be dead, and the pid another process's by now."""
    lines = _pid_file(data)
    return abs(int(lines[0])) if lines and lines[0].strip("- ").isdigit() else None


def recorded_status(data: Path) -> str:
    """`starting`, `ready` or `stopping`, as the postmaster wrote it last."""
    lines = _pid_file(data)
    return lines[7].strip() if len(lines) > 7 else "starting"


def works_in(pid: int, data: Path) -> bool:
    """Whether the process belongs to a server on this data folder, where all of Postgres' processes work."""
    try:
        process = psutil.Process(pid)
        alive = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
        return alive and Path(process.cwd()) == data.resolve()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return False  # another account's process cannot be the one that owns this data
