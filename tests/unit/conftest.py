"""An API that answers as it is told, and the client and the command line of tests against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from scripted_api import ScriptedApi

from scorehouse_client import Client


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi().running() as running:
        yield running


@pytest.fixture
def client(api: ScriptedApi) -> Iterator[Client]:
    with Client(api.url, "secret", timeout=5, retry_for=5) as made:
        yield made


@pytest.fixture
def scorehouse(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    """Against `api`, or the one of the module itself."""
    command = CommandLine(api.url, tmp_path, monkeypatch, capfdbinary)
    yield command
    command.end_processes()
