"""Chunks for the tests of profiles and drift: features, scores and row errors without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from monitoring.profile import Profile, profile_of
from monitoring.schema import ProfileSchema, schema_of
from records.row_error import RowError
from registry.runtime import Scores
from registry.signature import Column, Output, Signature

BINARY = Output(kind="classification", classes=[0, 1], class_type="integer", positive=1, has_probability=True)
_ARROW = {
    "number": pa.float64(),
    "integer": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "text": pa.string(),
    "timestamp": pa.timestamp("us"),
}


def signature_of(types: Mapping[str, Any], output: Output = BINARY) -> Signature:
    columns = [Column(name=name, type=type, nullable=True) for name, type in types.items()]
    return Signature(columns=columns, output=output)


def table_of(types: Mapping[str, Any], columns: Mapping[str, Any]) -> pa.Table:
    """Cells (None is null) as a table typed like the features of a chunk."""
    arrays = {}
    for name, cells in columns.items():
        plain = pa.array(cells, pa.string()) if types[name] == "category" else pa.array(cells)
        arrays[name] = plain.dictionary_encode() if types[name] == "category" else plain.cast(_ARROW[types[name]])
    return pa.table(arrays)


def scores_of(positive: Sequence[float] | np.ndarray) -> Scores:
    """What a binary classifier answers whose probabilities of the positive class these are."""
    found = np.asarray(positive, np.float64)
    return Scores((found >= 0.5).astype(np.int64), np.column_stack([1.0 - found, found]))


def same_scores(rows: int) -> Scores:
    """Scores that never drift."""
    return scores_of(np.linspace(0.01, 0.99, rows))


def error(column: str | None, code: str, row: int = 1) -> RowError:
    return RowError(row, row + 1, None, column, code, "message", "raw")


class OneColumn:
    """A model with the one feature `x`, and profiles of its cells."""

    def __init__(self, type: str, reference: Sequence[Any] | np.ndarray) -> None:
        self.types = {"x": type}
        self.schema: ProfileSchema = schema_of(
            signature_of(self.types), self.table(reference), same_scores(len(reference))
        )
        self.reference = self.profile(reference)

    def table(self, cells: Sequence[Any] | np.ndarray) -> pa.Table:
        return table_of(self.types, {"x": cells})

    def profile(self, cells: Sequence[Any] | np.ndarray, errors: Sequence[RowError] = ()) -> Profile:
        return profile_of(self.schema, self.table(cells), same_scores(len(cells)), errors)
