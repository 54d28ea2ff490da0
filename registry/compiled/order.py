"""In which order trees score many rows fastest: rows that are alike one after the other.

At each node a row goes left or right, and the processor guesses where before it knows. Neighbours that are alike go the same
ways, so that it guesses right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: To sort fewer rows takes longer than it saves.
SORTED_FROM = 1_000
_BINS = 8


def alike(columns: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.intp]:
    """A permutation (n,) that puts rows together which are in the same eighth of each column (n,)."""
    cell = np.zeros(len(columns[0]), np.uint16)  # small, because numpy sorts short integers in linear time
    for values in columns:
        finite = values[np.isfinite(values)]
        edges = np.quantile(finite, np.arange(1, _BINS) / _BINS) if finite.size else np.empty(0)
        cell = cell * np.uint16(_BINS) + np.searchsorted(edges, values, side="right").astype(np.uint16)
    return np.argsort(cell, kind="stable")
