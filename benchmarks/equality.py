"""Are the results of Scorehouse those of the model called in one process?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

TOLERANCE = 1e-12


@dataclass(frozen=True)
class Comparison:
    rows: int
    same_keys_in_order: bool
    differing_classes: int
    largest_probability_difference: float

    @property
    def equal(self) -> bool:
        return (
            self.same_keys_in_order and self.differing_classes == 0 and self.largest_probability_difference <= TOLERANCE
        )


def compare(ours: Path, theirs: Path, key: str) -> Comparison:
    """Compare two result files with the columns KEY, `prediction` and `probability`, row by row."""
    wanted = pacsv.ConvertOptions(include_columns=[key, "prediction", "probability"])
    left, right = (pacsv.read_csv(file, convert_options=wanted) for file in (ours, theirs))
    if len(left) != len(right):
        return Comparison(len(left), False, -1, float("inf"))
    return Comparison(
        rows=len(left),
        same_keys_in_order=left[key].equals(right[key]),
        differing_classes=_differing(left["prediction"], right["prediction"]),
        largest_probability_difference=float(
            np.abs(left["probability"].to_numpy() - right["probability"].to_numpy()).max()
        ),
    )


def _differing(left: pa.ChunkedArray, right: pa.ChunkedArray) -> int:
    """A missing prediction differs from everything."""
    return int(pc.sum(pc.fill_null(pc.not_equal(left, right), True)).as_py() or 0)
