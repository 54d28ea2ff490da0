"""The programs that look at what is delivered, as `make manifests` and `make lint-delivery` install them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: str | Path) -> str:
    """What a program says; its complaint fails the test. Without it the test is skipped, but fails in CI."""
    found = shutil.which(program, path=str(ROOT / ".venv-delivery" / "bin"))
    if found is None:
        missing = f"{program} is not installed; `make manifests` installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
