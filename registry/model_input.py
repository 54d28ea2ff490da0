"""From the features of a chunk to what the model was fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from registry.signature import Column, Signature


def to_model_input(features: Any, signature: Signature) -> pd.DataFrame | npt.NDArray[np.float64]:
    """Features (a table of n rows, as `Parsed` has them) as the model takes them.

    number: float64, null as NaN. integer: int64, if nullable float64 with NaN. boolean: bool, if nullable object with
    NaN. category, text: object with `str` and NaN, or with `frame="category"` a pandas category that begins with the
    signature's categories. timestamp: datetime64[us]. With `frame="array"`: float64 (n, columns), booleans as 0 and 1.
    Types depend on the signature alone, never on what the chunk happens to hold.
    """
    arrays = [single(features.column(column.name)) for column in signature.columns]
    if signature.frame == "array":
        return np.column_stack([_floats(values) for values in arrays]) if arrays else np.empty((features.num_rows, 0))
    series = {
        column.name: _series(column, values, signature.frame == "category")
        for column, values in zip(signature.columns, arrays, strict=True)
    }
    return pd.DataFrame(series, copy=False)


def _series(column: Column, values: Any, categories: bool) -> Any:
    if column.type == "category" and categories:
        return _categorical(column, values)
    if column.type in ("category", "text"):
        # An explicit dtype: pandas would turn an array of strings into its own string type.
        return pd.Series(objects(values), dtype=object, copy=False)
    if column.type == "boolean":
        return _booleans(values) if column.nullable else values.to_numpy(zero_copy_only=False)
    if column.type == "timestamp":
        return values.to_numpy(zero_copy_only=False)
    floats = _floats(values)
    return floats.astype(np.int64) if column.type == "integer" and not column.nullable else floats


def _floats(values: Any) -> npt.NDArray[np.float64]:
    """Float64 with null as NaN."""
    if not pa.types.is_floating(values.type):
        values = pc.cast(values, pa.float64())
    floats: npt.NDArray[np.float64] = values.to_numpy(zero_copy_only=False)
    return floats


def objects(values: Any, null: Any = np.nan) -> npt.NDArray[np.object_]:
    """The texts as Python's strings, and `null` for a null."""
    if not pa.types.is_dictionary(values.type):
        found: npt.NDArray[np.object_] = values.to_numpy(zero_copy_only=False)
        if values.null_count:
            found[pc.is_null(values).to_numpy(zero_copy_only=False)] = null
        return found
    # One Python string per category instead of one per row; the last place of the words is the null.
    words = np.array([*values.dictionary.to_pylist(), null], dtype=object)
    indices = pc.fill_null(values.indices, len(words) - 1) if values.null_count else values.indices
    codes: npt.NDArray[np.int32] = indices.to_numpy(zero_copy_only=False)
    return words.take(codes)


def _booleans(values: Any) -> Any:
    objects = np.array([False, True, np.nan], dtype=object)
    codes = pc.fill_null(pc.cast(values, pa.int8()), 2).to_numpy(zero_copy_only=False)
    return pd.Series(objects.take(codes), dtype=object, copy=False)


def _categorical(column: Column, values: Any) -> pd.Categorical:
    known = column.categories or []
    seen = values.dictionary.to_pylist()
    places = {word: place for place, word in enumerate([*known, *(word for word in seen if word not in set(known))])}
    codes = np.array([*(places[word] for word in seen), -1], dtype=np.int32)
    indices = pc.fill_null(values.indices, len(seen)).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(codes.take(indices), categories=pd.Index(list(places), dtype=object))


def single(chunks: Any) -> Any:
    """The array of a column of a table."""
    return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
