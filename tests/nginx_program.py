"""The nginx of this machine, for tests of the configurations that are in the repository."""

from __future__ import annotations

import os
import shutil

import pytest


def find_nginx() -> str:
    """Without nginx the test is skipped, but fails in CI."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        missing = "nginx is not installed; Debian has it in the package `nginx-light`"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return program
