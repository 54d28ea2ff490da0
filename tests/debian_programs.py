"""Programs of this machine that Debian has and no Python package brings; `.ci/tools` installs them."""

from __future__ import annotations

import os
import shutil

import pytest

_ELSEWHERE = "/usr/sbin:/usr/local/sbin:/sbin"


def find(name: str, package: str, *, folder: str | None = None) -> str:
    """The path of a program, in `folder` or where a shell of root would look. Without it the test is skipped, but fails in CI."""
    found = shutil.which(name, path=folder or f"{os.environ.get('PATH', '')}:{_ELSEWHERE}")
    if found is None:
        missing = f"{name} is not installed; Debian has it in the package `{package}`"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
