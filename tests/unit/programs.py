"""Programs that look at files of the repository. Without one its test is skipped, but fails in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Where `make manifests` and `make lint-delivery` install theirs.
DELIVERY = str(ROOT / ".venv-delivery" / "bin")


def run(
    program: str, *arguments: str | Path, path: str | None = DELIVERY, hint: str = "`make manifests` installs it"
) -> str:
    """What a program says; its complaint fails the test.

    Args:
        path: where it is looked for; None: where the shell does.
    """
    found = shutil.which(program, path=path)
    if found is None:
        missing = f"{program} is not installed; {hint}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
