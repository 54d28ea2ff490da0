"""One of our own processes under the supervisor: its output goes to the console line by line."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from embedded.console import Console
from embedded.tether import tethered

MAX_LINE_BYTES = 64 * 1024
TAIL_LINES = 20


class Program:
    """A command that runs until it is told to stop; may be started again after it ended.

    Args:
        env: its whole environment.
        stop_seconds: how long it may take to stop after SIGTERM.
    """

    stop_signal = signal.SIGTERM
    hurry_signal = signal.SIGKILL

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        console: Console,
        *,
        cwd: Path | None = None,
        stop_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.stop_seconds = stop_seconds
        self._argv = list(argv)
        self._env = dict(env)
        self._console = console
        self._cwd = cwd
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None

    def start(self) -> None:
        """Start it, from the main thread: it ends when that does (see `tether`)."""
        self._tail.clear()
        self._process = subprocess.Popen(
            tethered(self._argv, self.stop_signal),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,  # Ctrl-C is for the supervisor; and the group is what we kill, with all its children
        )
        assert self._process.stdout is not None
        self._pump = threading.Thread(target=self._forward, args=(self._process.stdout,), daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def poll(self) -> int | None:
        """The exit code (negative: the signal that ended it), or None while it runs or was never started."""
        return None if self._process is None else self._process.poll()

    def log_tail(self) -> list[str]:
        """The last lines it wrote, at most 20."""
        return list(self._tail)

    def send(self, number: signal.Signals) -> None:
        """Signal the process; SIGKILL goes to all processes of its group, for they could not be stopped without it."""
        if self._process is None or self._process.poll() is not None:
            return
        if number == signal.SIGKILL:
            self._kill_group(self._process.pid)
        else:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End at once whatever is left of it, and read its last words."""
        if self._process is None:
            return
        self._kill_group(self._process.pid)
        self._process.wait()
        if self._pump is not None:
            self._pump.join(timeout=1.0)

    def _kill_group(self, pid: int) -> None:
        with suppress(ProcessLookupError):  # the group is empty
            os.killpg(pid, signal.SIGKILL)

    def _forward(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(MAX_LINE_BYTES):
                text = line.decode(errors="replace").rstrip("\r\n")
                self._tail.append(text)
                self._console.log(self.name, text)
