"""Programs of other tools that a benchmark starts, and ends with all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from embedded.console import Console
from embedded.program import Program

LONGEST_SECONDS = 1_800.0
STOP_SECONDS = 15.0
SAID_CHARACTERS = 2_000


@dataclass(frozen=True)
class Ended:
    """What a program printed, and its seconds from start to end."""

    stdout: str
    seconds: float


def run(command: Sequence[str], environment: Mapping[str, str] = {}, longest: float = LONGEST_SECONDS) -> Ended:
    """Run a program to its end. What it says goes to files: a pipe would stay open with what it leaves running.

    Args:
        environment: on top of ours.
        longest: seconds that it may take.

    Raises:
        RuntimeError: it failed, with its last words, or took too long.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(longest)
            seconds = time.perf_counter() - began
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{' '.join(command)} was not ready after {longest:.0f} s") from None
        finally:
            _end(process.pid)
            process.wait()
        for file in (out, errors):
            file.seek(0)
        if code:
            raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{errors.read()[-SAID_CHARACTERS:]}")
        return Ended(out.read(), seconds)


@contextmanager
def running(name: str, argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Program]:
    """A program that runs until the end of the block; what it says goes to a log in `folder`.

    Args:
        environment: on top of ours.
    """
    with (folder / f"{name}.log").open("w") as log:
        program = Program(name, argv, {**os.environ, **environment}, Console(log), cwd=Path.cwd())
        program.start()
        try:
            yield program
        finally:
            if program.pid is not None:
                _end(program.pid)
            program.stop()


def _end(pid: int) -> None:
    """End a process that leads its group, politely, and then what is left of its group and below it."""
    below: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        head = psutil.Process(pid)
        below = head.children(recursive=True)
        head.terminate()
        psutil.wait_procs([head], STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(below, STOP_SECONDS)
