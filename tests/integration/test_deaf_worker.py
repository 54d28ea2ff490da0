"""A worker that lives, beats and is never given a permit, while work waits and the broker answers: it ends itself."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cli import command_lines
from embedded.console import Console
from embedded.program import Program
from permits import TRAINING

WAIT_SECONDS = 60.0


@pytest.mark.parametrize("deaf", [True, False])
def test_a_worker_that_hears_nothing_beside_work_exits(
    deaf: bool, servers: Any, database_url: str, make_job: Callable[..., UUID], tmp_path: Path
) -> None:
    """One that has nothing to do hears nothing either, and stays."""
    if deaf:
        make_job(1)
    environment = {
        **os.environ,
        "SCOREHOUSE_DATABASE_URL": database_url,
        "SCOREHOUSE_BROKER_URL": servers.broker_url,
        "SCOREHOUSE_DATA_DIR": str(tmp_path),
        "SCOREHOUSE_DEAF_SECONDS": "1",
        **command_lines.worker_environment(["bulk"]),
    }
    argv = command_lines.worker(["bulk"], 1, "worker-deaf")
    argv[argv.index("-Q") + 1] = TRAINING  # no permit of its own lane comes here
    output = io.StringIO()
    worker = Program("worker", argv, environment, Console(output), cwd=tmp_path, stop_seconds=30)
    worker.start()
    try:
        began = time.monotonic()
        seconds = WAIT_SECONDS if deaf else 12.0  # several hearing tests
        while worker.poll() is None and time.monotonic() - began < seconds:
            time.sleep(0.05)
        assert (worker.poll() is None) is not deaf, output.getvalue()
    finally:
        worker.stop()
    assert ('"deaf"' in output.getvalue()) is deaf
