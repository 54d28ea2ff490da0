"""What the benchmarks against other tools rest on: fair ratios, the models' own versions, and nothing left running."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.bulk_peers import per_row
from benchmarks.environments import PEERS
from benchmarks.processes import run

LOCK = (PEERS.parents[1] / "requirements.lock").read_text()
# A program that starts another, in a group of its own, says who that is, and waits for it.
STARTS_ANOTHER = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
child.wait()
"""


def test_ratios_are_those_of_a_row_in_the_same_repeat() -> None:
    assert per_row([1.0, 3.0], 10, [2.0, 3.0], 100) == [5.0, 10.0]


@pytest.mark.parametrize("file", sorted(PEERS.glob("*.txt")), ids=lambda file: file.stem)
@pytest.mark.parametrize("library", ["scikit-learn", "pandas", "numpy", "scipy", "joblib"])
def test_a_tool_loads_a_model_with_the_libraries_that_fitted_it(file: Path, library: str) -> None:
    pinned = re.search(rf"^{library}==(\S+)$", file.read_text(), re.MULTILINE)
    assert pinned, f"{file.name} does not pin {library}"
    assert re.search(rf"^{library}=={re.escape(pinned[1])}[ \\]", LOCK, re.MULTILINE)


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(RuntimeError, match="no such model"):
        run([sys.executable, "-c", "import sys; sys.exit('no such model')"])


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="was not ready after 2 s"):
        run([sys.executable, "-c", STARTS_ANOTHER, str(tmp_path / "pid")], longest=2.0)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
