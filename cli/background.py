"""A stack that runs beside this process, for as long as this process wants it: `scorehouse up` with its log in a file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from embedded.secrets import ensure_data_dir
from embedded.tether import tethered
from errors import ScorehouseError
from settings import Settings

SCOREHOUSE = Path(sys.executable).with_name("scorehouse")
POLL_SECONDS = 0.05
START_SECONDS = 120.0
STOP_SECONDS = 60.0


class StackFailed(ScorehouseError):
    """The stack did not start, or ended by itself; `log_tail` holds its last words."""

    def __init__(self, detail: str, log_tail: list[str]) -> None:
        super().__init__(detail)
        self.log_tail = log_tail


class BackgroundStack:
    """The stack of a data folder; one that runs there already is used, and left running.

    Start it from the main thread: only then does it end when this process is killed.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def found(self) -> Mapping[str, Any]:
        """What stack.json says, empty when no stack runs."""
        running: Mapping[str, Any] = Settings(data_dir=self.data_dir).running_stack()
        return running if running and psutil.pid_exists(int(running["pid"])) else {}

    @property
    def ours(self) -> bool:
        """Whether it was started here and still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def environment(self) -> dict[str, str]:
        """For commands that are to speak to this stack, whatever else the environment points to."""
        inherited = {name: value for name, value in os.environ.items() if name != "SCOREHOUSE_TOKEN"}
        ours = {"SCOREHOUSE_DATA_DIR": str(self.data_dir), "SCOREHOUSE_API_URL": str(self.found["api_url"])}
        return {**inherited, **ours}

    def start(self, workers: int, port: int, flower_port: int) -> list[str]:
        """Start it and return, as soon as it is ready, the command that was run; empty when a stack ran already.

        Raises:
            StackFailed: it ended, or was not ready in time.
        """
        if self.found:
            return []
        command = ["up", "--workers", str(workers), "--port", str(port), "--flower-port", str(flower_port)]
        command += ["--data-dir", str(self.data_dir)]
        ensure_data_dir(self.data_dir)
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                tethered([str(SCOREHOUSE), *command], signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we stop the stack when we are ready
            )
        self._wait_until_ready(self._process)
        return ["scorehouse", *command]

    def check(self) -> None:
        """Raises StackFailed when the stack has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise self._failure(f"the stack ended with code {self._process.returncode}")
        if not self.found:
            raise self._failure("no stack runs any more")

    def wait(self) -> None:
        """Return when the stack that we started has ended."""
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """Drain and stop the stack if we started it. Nothing happens when it ended already."""
        if self._process is None or not self.ours:
            return
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # the second one hurries
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS / 2)
            except subprocess.TimeoutExpired:
                continue
            return

    def log_tail(self, lines: int = 30) -> list[str]:
        try:
            return self.log_file.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.found.get("pid") != process.pid:
            if process.poll() is not None:
                raise self._failure(f"the stack ended with code {process.returncode} while it was starting")
            if time.monotonic() > deadline:
                self.stop()
                raise self._failure(f"the stack was not ready within {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def _failure(self, what: str) -> StackFailed:
        return StackFailed(f"{what}; its log is {self.log_file}", self.log_tail())


def free_port(wanted: int) -> int:
    """`wanted`, or any free port of the loopback interface when something listens there already."""
    for port in (wanted, 0):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen: int = candidate.getsockname()[1]
            return chosen
    raise ScorehouseError("no port of the loopback interface is free: stop something that listens there")
