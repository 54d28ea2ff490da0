"""What a profile counts of a column: its numbers, or its words and how often each is there. No ML library is imported.

The number of a timestamp is its seconds since 1970, that of a text its length in characters. The word of a class is
spelled as the class is stored with a prediction: numbers in their shortest form, booleans as true and false.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_MICROSECONDS = 1e6


def numbers(values: Any) -> Floats:
    """The numbers (n,) of the cells of an arrow array that are not null."""
    present = values.drop_null()
    if pa.types.is_string(present.type):
        present = pc.utf8_length(present)
    if pa.types.is_timestamp(present.type):
        moments = present.cast(pa.timestamp("us")).cast(pa.int64())
        return np.asarray(moments.to_numpy() / _MICROSECONDS, np.float64)
    floats: Floats = present.cast(pa.float64()).to_numpy()
    return floats


def word_counts(values: Any) -> tuple[list[str], Counts]:
    """The distinct words (k) of the cells that are not null, and how many cells (k,) hold each; a count may be 0."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    words = encoded.dictionary.cast(pa.string()).to_pylist()
    indices = encoded.indices.drop_null().to_numpy()
    return words, np.bincount(indices, minlength=len(words)).astype(np.int64)


def probability_of(probabilities: Floats, positive: int | None) -> Floats:
    """Of probabilities (n, k) the one (n,) in column `positive`; without it the highest of each row."""
    return probabilities.max(axis=1) if positive is None else probabilities[:, positive]


def labels(prediction: npt.NDArray[Any]) -> Any:
    """Predictions (n,) as an arrow array."""
    if prediction.dtype.kind == "O":
        return pa.array(prediction.tolist())
    return _encoded(prediction) if prediction.dtype.kind == "U" else pa.array(prediction)


def _encoded(texts: npt.NDArray[Any]) -> Any:
    """NumPy's fixed-width texts as a dictionary array: arrow would decode each of them, here it compares their bytes."""
    buffer = pa.py_buffer(np.ascontiguousarray(texts))
    rows = pa.FixedSizeBinaryArray.from_buffers(pa.binary(texts.itemsize), len(texts), [None, buffer])
    encoded = rows.dictionary_encode()
    words = np.frombuffer(b"".join(encoded.dictionary.to_pylist()), texts.dtype).tolist()
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(words, pa.string()))
