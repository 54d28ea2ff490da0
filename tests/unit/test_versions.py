"""Semantic versions: what is one, and which is higher."""

from __future__ import annotations

import random
import re

import pytest

from api.schemas import VERSION
from db.versions import precedence

# The example of semver.org, 11, and what it leaves out.
ASCENDING = [
    "0.9.9", "1.0.0-0", "1.0.0-2", "1.0.0-11", "1.0.0-11.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta",
    "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0-x-y.7z", "2.0.0", "10.0.0",
]  # fmt: skip


def test_versions_sort_by_precedence() -> None:
    shuffled = random.Random(4).sample(ASCENDING, len(ASCENDING))
    assert sorted(shuffled, key=precedence) == ASCENDING
    assert all(re.match(VERSION, version) for version in ASCENDING)


@pytest.mark.parametrize(
    "version",
    ["1", "1.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0-a..b", "1.0.0-a.", "v1.0.0", "1.0.0+build", "1.0.0\n", ""],
)  # fmt: skip
def test_what_is_no_version(version: str) -> None:
    assert re.fullmatch(VERSION, version) is None
