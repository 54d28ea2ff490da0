"""What the embedded servers have in common: one foreground child that holds a lock on its folder and logs to a file there."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from embedded import EmbeddedError
from embedded.account import Account
from embedded.lock import FolderLock
from embedded.tether import tethered

POLL_SECONDS = 0.02
LEAVING_SECONDS = 30.0
ORPHAN_SECONDS = 2.0
RUNNING_SECONDS = 1.0
MAX_LOG_BYTES = 16 * 1024 * 1024


class Server(ABC):
    """Use it as a context manager, or call `start` and `stop`; it may be started again after either it or we died.

    Start it from the main thread: only then does it end when this process is killed (see `tether`).
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]  # sent to stop it, and by the kernel when we die
    hurry_signal: ClassVar[signal.Signals]
    stop_seconds: ClassVar[float]

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self.folder = folder.absolute()
        self.options = dict(options)
        self._lock = FolderLock(self.folder / "lock")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it; known once it has started."""

    @abstractmethod
    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            EmbeddedError: a server runs on this folder already, or this one did not come up.
        """

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name.lower()}.log"

    @property
    def pid(self) -> int | None:
        """None before the first start."""
        return None if self._process is None else self._process.pid

    def poll(self) -> int | None:
        """The exit code, or None while it runs or was never started."""
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def log_tail(self, lines: int = 20) -> list[str]:
        try:
            return self.log_file.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def stop(self) -> None:
        """Stop it and wait for that; nothing happens when it does not run."""

    def _take_folder(self) -> None:
        """Hold the folder's lock, waiting for a server that is on its way out, but not for one that stays."""
        started = time.monotonic()
        while not self._lock.acquire():
            waited = time.monotonic() - started
            running = self._running_pid()
            if running is None and waited > ORPHAN_SECONDS:
                self._end_orphans()
            if waited > (LEAVING_SECONDS if running is None else RUNNING_SECONDS):
                raise EmbeddedError(
                    f"{self.name} already runs on {self.folder}"
                    + (f" (pid {running})" if running else f": its processes did not end within {waited:.0f} s")
                    + ": stop it, or use another folder"
                )
            time.sleep(POLL_SECONDS)

    def _end_orphans(self) -> None:  # noqa: B027 - not every server leaves any
        """End what is left of a server that is dead, if it does not end by itself."""

    @abstractmethod
    def _running_pid(self) -> int | None:
        """The server that holds the folder, unless it is stopping or dead with processes of its own left over."""

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str], account: Account | None = None) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > MAX_LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                tethered(argv, self.stop_signal, account),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                cwd="/",
                pass_fds=(self._lock.descriptor,),
                start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server last
            )
        finally:
            os.close(log)

    def _wait_until_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._answers():
            code = self.poll()
            if code is not None or time.monotonic() > deadline:
                why = f"did not answer within {seconds:.0f} s" if code is None else f"ended with code {code}"
                tail = "\n".join(self.log_tail(10))
                self._end([(signal.SIGKILL, 10.0)])
                raise EmbeddedError(f"{self.name} in {self.folder} {why}. The end of {self.log_file}:\n{tail}")
            time.sleep(POLL_SECONDS)

    @abstractmethod
    def _answers(self) -> bool:
        """Whether a client gets an answer now."""

    def _end(self, steps: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send each signal in turn until the process is gone, waiting that many seconds; then let go of the folder."""
        for number, seconds in steps:
            if self._process is None or self._process.poll() is not None:
                break
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self._lock.release()
