"""The number of the next version of a model."""

from __future__ import annotations

import re
from collections.abc import Collection

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-.*)?")
FIRST = "1.0.0"


def next_version(existing: Collection[str], after: str | None = None) -> str:
    """One minor version more than `after`, or than the highest one, until it is free; `1.0.0` where there is none.

    A pre-release such as `1.2.0-rc1` counts as the version that it leads to.
    """
    numbers = {_numbers(version) for version in existing}
    if not numbers and after is None:
        return FIRST
    major, minor, _ = _numbers(after) if after is not None else max(numbers)
    taken = {found[:2] for found in numbers}
    minor += 1
    while (major, minor) in taken:
        minor += 1
    return f"{major}.{minor}.0"


def _numbers(version: str) -> tuple[int, int, int]:
    found = _VERSION.fullmatch(version)
    assert found is not None, "the registry takes semantic versions only"
    return int(found[1]), int(found[2]), int(found[3])
