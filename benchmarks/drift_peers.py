"""The same drift question put to SciPy and to Evidently, on the raw rows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from scipy.stats import ks_2samp

from benchmarks.stored_rows import COLUMNS, Matrix

# Not imported: it needs Evidently.
SCRIPT = Path(__file__).with_name("evidently_script.py")
LONGEST_SECONDS = 120.0
SCIPY_REPEATS = 3


@dataclass(frozen=True)
class SciPy:
    """Seconds of `ks_2samp` over all columns (the median of some runs), and the distance of each."""

    rows: int
    seconds: float
    distances: dict[str, float]


@dataclass(frozen=True)
class Evidently:
    """Of `DataDriftPreset` with its defaults: seconds, further memory, and how many columns it calls drifted."""

    version: str
    rows: int
    seconds: float
    extra_mib: float
    drifted: int


def scipy(reference: Matrix, current: Matrix) -> SciPy:
    seconds, distances = [], {}
    for _ in range(SCIPY_REPEATS):
        began = time.perf_counter()
        for place, name in enumerate(COLUMNS):
            distances[name] = float(ks_2samp(reference[:, place], current[:, place]).statistic)
        seconds.append(time.perf_counter() - began)
    return SciPy(len(current), median(seconds), distances)


def evidently(reference: Matrix, current: Matrix) -> Evidently:
    """Install Evidently into a virtual environment that is thrown away, and run it on as many rows as it can do in time.

    Raises:
        RuntimeError: it does not work here, not even on the fewest rows.
    """
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as name:
        folder = Path(name)
        python = _installed(folder)
        files = [folder / "reference.npy", folder / "current.npy"]
        for file, values in zip(files, (reference, current), strict=True):
            np.save(file, values)
        version = _said(python, "-c", "import importlib.metadata as m; print(m.version('evidently'))").strip()
        for rows in (len(current), 300_000, 100_000, 30_000):
            try:
                found = json.loads(_said(python, str(SCRIPT), *map(str, files), str(rows)))
            except subprocess.TimeoutExpired:
                print(f"Evidently was not ready with {rows:,} rows after {LONGEST_SECONDS:.0f} s", flush=True)
                continue
            return Evidently(version, rows, **found)
    raise RuntimeError(
        f"Evidently {version} was not ready after {LONGEST_SECONDS:.0f} s, not even with the fewest rows"
    )


def _installed(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    # Evidently 0.7.23 imports what pandas 3 no longer has.
    wanted = ["evidently", "pandas<3"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True, capture_output=True)
    return python


def _said(python: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(python), *arguments], check=False, capture_output=True, text=True, timeout=LONGEST_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]
