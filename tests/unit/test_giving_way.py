"""A worker that gives way does so against other sessions too, if its session is its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
from pathlib import Path
from worker.giving_way import give_way
before, group = os.nice(0), Path("/proc/self/autogroup")
earlier = group.read_text() if group.exists() else ""
give_way(7)
print(os.nice(0) - before, group.exists() and group.read_text() != earlier)
"""


def said(*command: str, new_session: bool) -> list[str]:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, start_new_session=new_session, timeout=60
    )
    return done.stdout.split()


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group sessions")
def test_a_session_of_its_own_gives_way_as_a_whole() -> None:
    assert said(sys.executable, "-c", PROGRAM, new_session=True) == ["7", "True"]


def test_a_session_that_others_share_is_left_alone() -> None:
    """Between the program and whoever leads the session stands a shell."""
    told = said("sh", "-c", '"$0" -c "$1"; :', sys.executable, PROGRAM, new_session=False)
    assert told == ["7", "False"]
