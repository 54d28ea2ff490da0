"""Evidently's drift report of two files: run by `benchmarks.drift_peers` with a Python that has Evidently, and nothing of ours.

    python evidently_script.py REFERENCE.npy CURRENT.npy ROWS

Prints a JSON object: seconds of the report, MiB of memory that it took beyond what the process had with the data loaded,
and how many columns it calls drifted. Both files are (rows, columns).
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset


def main() -> None:
    reference, current = (_frame(path) for path in sys.argv[1:3])
    current = current.head(int(sys.argv[3])).copy()
    before = _mib("VmRSS")
    began = time.perf_counter()
    found = Report([DataDriftPreset()]).run(current, reference).dict()
    seconds = time.perf_counter() - began
    drifted = next(metric["value"]["count"] for metric in found["metrics"] if "DriftedColumns" in str(metric))
    print(json.dumps({"seconds": seconds, "extra_mib": _mib("VmHWM") - before, "drifted": int(drifted)}))


def _frame(path: str) -> pd.DataFrame:
    values = np.load(path)
    return pd.DataFrame({f"x{place:02}": np.ascontiguousarray(values[:, place]) for place in range(values.shape[1])})


def _mib(name: str) -> float:
    """A figure of this process's memory, as the kernel keeps it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


if __name__ == "__main__":
    main()
