"""The reference of a trained version: a bounded sample, from which registration must infer the types it was fitted with.

It consists of rows of the hold-out, so that what the version is judged against are rows that it was not fitted on. A few
rows are added where their lack would change a type: a null of each column that may be null, each category once.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from errors import InvalidInput
from registry import cells
from registry.reference import MAX_CATEGORIES, infer_column
from registry.signature import Column
from training.rows import Positions, Rows

ROWS = 5_000
_ROUNDS = 5
_MAX_CELL_CHARS = 1 << 30


def write_reference(rows: Rows, hold_out: Positions, path: Path, *, size: int = ROWS, seed: int) -> int:
    """Write a CSV of key, features and target; returns how many rows it has.

    Args:
        rows: all labelled rows, `hold_out` the positions of those that were not fitted on.
        size: of the sample; some rows may be added to it.
    """
    chosen = sampled(rows, hold_out, size=size, seed=seed)
    sample = rows.take(chosen)
    signature = rows.signature
    header = [*([signature.key] if signature.key else []), *signature.names, signature.target or "target"]
    columns = [texts_of(column, sample.features.column(column.name)).to_pylist() for column in signature.columns]
    known = [""] * len(sample) if sample.keys is None else [key or "" for key in sample.keys.to_pylist()]
    keys = [known] if signature.key else []
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*keys, *columns, sample.labels.to_pylist(), strict=True))
    return len(sample)


def sampled(rows: Rows, hold_out: Positions, *, size: int, seed: int) -> Positions:
    """Positions of the sample.

    Raises:
        InvalidInput: no sample of this size has the types of all rows.
    """
    random = np.random.default_rng(seed)
    chosen = random.choice(hold_out, min(size, len(hold_out)), replace=False)
    categories = [_first_of_each(rows, column) for column in rows.signature.columns if column.type == "category"]
    chosen = _with(chosen, categories)
    for _ in range(_ROUNDS):
        witnesses = list(_witnesses(rows, chosen))
        if not witnesses:
            return chosen
        chosen = _with(chosen, witnesses)
    if len(rows) <= size:
        return np.arange(len(rows))
    raise InvalidInput(
        f"no sample of {size:,} rows has the types of all {len(rows):,}; the columns at fault are "
        f"{', '.join(column.name for column, _ in _wrong(rows, chosen))}: leave them out, or write them all alike"
    )


def texts_of(column: Column, values: Any) -> Any:
    """Typed cells as a string array that is read as the same cells; null is empty."""
    if column.type in ("category", "text"):
        return pc.fill_null(pc.cast(_single(values), pa.string()), "")
    plain = _single(values).to_pylist()
    return pa.array(["" if value is None else _spelled(column, value) for value in plain], pa.string())


def _spelled(column: Column, value: Any) -> str:
    if column.type == "boolean":
        return "true" if value else "false"
    if column.type == "integer":
        return str(int(value))
    if column.type == "timestamp":
        return str(value.isoformat())
    return repr(float(value))


def _wrong(rows: Rows, chosen: Positions) -> Iterable[tuple[Column, Column]]:
    """Each column whose type or nullability would be inferred otherwise from the sample, and as what."""
    sample = rows.take(chosen)
    for column in rows.signature.columns:
        found = infer_column(column.name, texts_of(column, sample.features.column(column.name)))
        another_type = column.type not in {found.type, "timestamp"}
        if another_type or (column.nullable and not found.nullable):
            yield column, found


def _witnesses(rows: Rows, chosen: Positions) -> Iterable[Positions]:
    """Rows that the sample lacks."""
    for column, found in _wrong(rows, chosen):
        values = _single(rows.features.column(column.name))
        if column.nullable and not found.nullable:
            yield _positions(pc.is_null(values))[:3]
        if found.type == column.type:
            continue
        yield _positions(pc.is_valid(values))[:3]
        if column.type in ("category", "text"):
            yield _first_of_each(rows, column)
            _, faults = cells.from_texts(found, texts_of(column, values), _MAX_CELL_CHARS)
            yield np.array(sorted(faults)[:1], np.int64)


def _first_of_each(rows: Rows, column: Column) -> Positions:
    """The first row of each of the first 101 different words."""
    values = _single(rows.features.column(column.name))
    codes = (values if pa.types.is_dictionary(values.type) else values.dictionary_encode()).indices
    _, first = np.unique(codes.drop_null().to_numpy(), return_index=True)
    return _positions(pc.is_valid(values))[np.sort(first)[: MAX_CATEGORIES + 1]]


def _positions(mask: Any) -> Positions:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False)).astype(np.int64)


def _with(chosen: Positions, more: list[Positions]) -> Positions:
    return np.unique(np.concatenate([chosen, *more])).astype(np.int64)


def _single(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
