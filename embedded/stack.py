"""One stack per data folder: the lock that says so, what runs from it, and what a killed one left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil

from embedded import EmbeddedError
from embedded.lock import FolderLock
from embedded.secrets import write_private
from settings import Settings

# Carried by each process of a stack and inherited by its children, so that leftovers can be told from strangers.
MARK = "SCOREHOUSE_STACK"
LEFTOVER_SECONDS = 20.0
POLL_SECONDS = 0.1


class Stack:
    """The right to run a stack from `settings.data_dir`, an absolute path that exists."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = FolderLock(settings.data_dir / "stack.lock")

    @property
    def mark(self) -> dict[str, str]:
        """Environment of every process of this stack."""
        return {MARK: str(self._settings.data_dir)}

    def take(self) -> None:
        """Claim the data folder until `release` or the end of this process.

        Raises:
            EmbeddedError: a stack runs from it; the message says what runs and where.
        """
        if not self._lock.acquire():
            raise EmbeddedError(_already_runs(self._settings))
        self._settings.stack_file.unlink(missing_ok=True)  # left by one that was killed

    def end_leftovers(self, say: Callable[[str], None]) -> None:
        """Wait for processes of a stack that was killed: they were told to stop when it died. Then kill those that stay."""
        left = self._leftovers()
        if not left:
            return
        say(f"waiting for {len(left)} processes of a stack that was killed")
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while left and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            left = self._leftovers()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)

    def write_down(self, content: Mapping[str, Any]) -> None:
        """Say in stack.json, readable by us alone, that all is up and where."""
        write_private(self._settings.stack_file, json.dumps(content, indent=2))

    def release(self) -> None:
        self._settings.stack_file.unlink(missing_ok=True)
        self._lock.release()

    def _leftovers(self) -> list[psutil.Process]:
        """Processes that carry our mark; while we hold the lock and have started none, they belong to a dead stack."""
        return [process for process in psutil.process_iter() if self._carries_mark(process)]

    def _carries_mark(self, process: psutil.Process) -> bool:
        try:
            marked = process.environ().get(MARK) == str(self._settings.data_dir)
            return marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # ended meanwhile, or not ours to look at
            return False


def _already_runs(settings: Settings) -> str:
    running = settings.running_stack()
    if not running:
        return f"a stack is just starting or stopping in {settings.data_dir}: wait for it, or use another --data-dir"
    places = [f"API {running['api_url']}"] + ([f"Flower {running['flower_url']}"] if running.get("flower_url") else [])
    return (
        f"a stack already runs from {settings.data_dir} since {running['started_at']}, pid {running['pid']}: "
        f"{', '.join(places)}. Stop it with Ctrl-C in its terminal or `kill {running['pid']}`, "
        "or use another --data-dir and --port"
    )
