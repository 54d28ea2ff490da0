"""The command line as tests of it run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from scripted_api import ScriptedApi


@pytest.fixture
def scorehouse(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    """Against the module's own `api`."""
    command = CommandLine(api.url, tmp_path, monkeypatch, capfdbinary)
    yield command
    command.end_processes()
