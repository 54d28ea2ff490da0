"""Runs of the `scorehouse` command: in this process, or as a process of its own where signals and pipes matter."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from settings import get_settings

ESCAPE = b"\x1b"
# How long a process may take before its test fails: the machine may be busy with something else.
PATIENCE_SECONDS = 60.0


@dataclass
class Outcome:
    code: int
    out: bytes
    err: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """`CommandLine(...)("jobs", "list")`, in an empty folder, with a token and the URL of a scripted API."""

    def __init__(
        self, url: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capture = capture
        self._started: list[subprocess.Popen[bytes]] = []
        self.variables = {"SCOREHOUSE_TOKEN": "secret"} | ({} if url is None else {"SCOREHOUSE_API_URL": url})
        monkeypatch.chdir(folder)
        foreign = ("SCOREHOUSE_", "FORCE_COLOR", "PYTHONUNBUFFERED")
        for name in [name for name in os.environ if name.startswith(foreign)]:
            monkeypatch.delenv(name)

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        with self._monkeypatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            get_settings.cache_clear()
            self._capture.readouterr()
            code = run(arguments)
            captured = self._capture.readouterr()
        get_settings.cache_clear()
        return Outcome(code, captured.out, captured.err)

    def start(self, *arguments: str, interpreter: Sequence[str] = (), **options: Any) -> subprocess.Popen[bytes]:
        """The same as a process of its own, with pipes."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, *interpreter, "-m", "cli.main", *arguments],
            env={**os.environ, **self.variables},
            **{**pipes, **options},
        )
        self._started.append(process)
        return process

    def end_processes(self) -> None:
        """Of a test that failed; the others have ended theirs."""
        for process in self._started:
            process.kill()
            with process:  # closes its pipes and waits
                pass
