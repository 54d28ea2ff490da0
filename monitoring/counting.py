"""One column of a chunk counted into the bins of the profile schema. No ML library is imported here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from monitoring.schema import CategoryColumn, NumericColumn, ProfileSchema
from monitoring.values import Counts, Floats, word_counts
from records.row_error import RowError
from registry.row_text import shortened

MAX_UNSEEN_VALUES = 20
UNSEEN_CHARS = 100
#: Sum, sum of squares, minimum and maximum.
Moments = tuple[float, float, float, float]
#: What a column without numbers has.
NO_MOMENTS: Moments = (0.0, 0.0, np.inf, -np.inf)
#: Places of what never became a value: null cells, missing values, not finite, of a wrong type (any other code).
NULLS, MISSING, NON_FINITE, TYPE_ERRORS = range(4)
_PLACE_OF_CODE = {"missing_value": MISSING, "missing_column": MISSING, "non_finite": NON_FINITE}


def numeric_bins(column: NumericColumn, values: Floats) -> tuple[Counts, Moments]:
    """Counts by bin and the moments of the values that are finite."""
    # To look up some 300 edges among sorted values costs a fifth of looking up 30,000 values among the edges.
    ordered = np.sort(values)  # NaN comes last
    start, end = np.searchsorted(ordered, -np.inf, "right"), np.searchsorted(ordered, np.inf, "left")
    finite = ordered[start:end]
    if not len(finite):
        return np.zeros(column.bins, np.int64), NO_MOMENTS
    cuts = np.searchsorted(finite, column.edge_array, "left")
    counts = np.diff(cuts, prepend=0, append=len(finite)).astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers of 1e200 have no square, and are still counted
        # Not a dot product: BLAS would wake its threads for it, which costs more than all the rest.
        differences = finite - column.center
        moments = float(differences.sum()), float(np.square(differences).sum()), float(finite[0]), float(finite[-1])
    return counts, moments


def category_bins(column: CategoryColumn, values: Any) -> tuple[Counts, tuple[str, ...]]:
    """Counts by bin, and some of the words that are not in the schema."""
    words, counts = word_counts(values)
    bin_of = column.bin_of
    places = np.array([bin_of.get(word, column.unseen) for word in words], np.int64)
    bins = np.bincount(places, counts, minlength=column.bins).astype(np.int64)
    strange = np.flatnonzero((places == column.unseen) & (counts > 0))[:MAX_UNSEEN_VALUES]
    return bins, tuple(shortened(words[at], UNSEEN_CHARS) for at in strange)


def add_errors(faults: Counts, schema: ProfileSchema, errors: Sequence[RowError]) -> None:
    place_of = {column.input: place for place, column in enumerate(schema.columns) if column.input is not None}
    for (name, code), count in Counter((error.column, error.code) for error in errors).items():
        if name in place_of:  # not the key column, nor an error of the whole record
            faults[place_of[name], _PLACE_OF_CODE.get(code, TYPE_ERRORS)] += count
