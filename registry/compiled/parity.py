"""Whether a compiled model answers as its original: on the whole reference, on its columns shuffled, and on probes.

A probe is a row of the reference with one cell put to what the reference may not hold: a null, a word that nobody knows, a
number far out. Where only nulls or unknown words are answered differently, they are left to the original (`Guards`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry.compiled.compile import NotCompilable
from registry.compiled.record import Guards
from registry.compiled.runtime import CompiledRuntime
from registry.model_input import single, to_model_input
from registry.onnx_runtime import NULL_TEXT
from registry.scores import Scores
from registry.signature import Column, Signature
from registry.sklearn_runtime import TIE, SklearnRuntime

#: How far an answer may be off, relative for a regression above 1. Below half of a tie, so that no class can differ.
TOLERANCE = TIE / 10
_BASES = 4
_SHUFFLED = 1_000
_UNKNOWN = "\N{SNOWMAN} no such word"


@dataclass(frozen=True)
class Agreement:
    """What was compared: rows, how many classes differ before ties are left to the original, the largest difference."""

    guards: Guards
    rows: int
    probes: int
    flips: int
    max_difference: float


def agreement(
    original: SklearnRuntime,
    content: bytes,
    features: Any,
    scores: Scores,
    signature: Signature,
    *,
    provider: str | None = None,
) -> Agreement:
    """Compare the compiled `content` with its original.

    Args:
        features: the reference (n rows), as `Parsed` has it.
        scores: what the original answers to it.

    Raises:
        NotCompilable: it cannot be loaded, or they differ, other than at nulls and unknown words.
    """
    try:
        bare = CompiledRuntime(original, content, signature, Guards(), provider=provider)
    except Exception as exc:  # such as an operator, or a locale of the system, that is missing
        raise NotCompilable(f"ONNX Runtime does not load it ({type(exc).__name__}: {exc})") from exc
    guards, probes = _guards(original, bare, features, signature)
    compiled = CompiledRuntime(original, content, signature, guards, provider=provider)
    found, own = _own(compiled, features, signature)
    expected = _answers(scores)[own]
    difference = _difference(found, expected, signature)
    if difference > TOLERANCE:
        raise NotCompilable(f"compiled, it differs by {difference:.2g} on the reference")
    flips = 0 if scores.probabilities is None else int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    shuffled = _shuffled(features)
    if not _alike(original, compiled, shuffled, signature):
        raise NotCompilable("compiled, it differs on the reference with its columns shuffled")
    return Agreement(guards, features.num_rows, probes + shuffled.num_rows, flips, difference)


def _guards(original: SklearnRuntime, bare: CompiledRuntime, features: Any, signature: Signature) -> tuple[Guards, int]:
    """Which columns need one, and how many probes that took."""
    apart: dict[str, list[str]] = {"null": [], "unseen": []}
    bases = _bases(features)
    probes = [
        (column, guard, value, _with_cell(bases, place, value))
        for place, column in enumerate(signature.columns)
        for guard, value in _values(column, features.column(place))
    ]
    together = pa.concat_tables([bases, *(rows for *_, rows in probes)]).unify_dictionaries().combine_chunks()
    if _alike(original, bare, together, signature):
        return Guards(), together.num_rows
    for column, guard, value, rows in probes:
        if _alike(original, bare, rows, signature):
            continue
        if guard is None:
            raise NotCompilable(f"compiled, it differs where the column {column.name!r} is {value!r}")
        if column.name not in apart[guard]:
            apart[guard].append(column.name)
    return Guards(**apart), together.num_rows


def _values(column: Column, values: Any) -> Iterator[tuple[str | None, Any]]:
    """What to put into cells of a column, with the guard that there is for it."""
    if column.nullable:
        yield "null", None
    if column.type in ("category", "text"):
        # Nothing tells unknown words from others where the signature names none.
        guard = "unseen" if column.categories is not None else None
        yield guard, _UNKNOWN
        yield guard, NULL_TEXT
        seen = set(pc.unique(values).to_pylist())
        yield from ((None, word) for word in column.categories or () if word not in seen)
    elif column.type in ("number", "integer"):
        low, high = (float(bound or 0) for bound in pc.min_max(values).as_py().values())
        far = 10 * (high - low) + 1
        for number in (low - far, high + far, 0.0, -1.0, 123_456_789.0):
            yield None, int(number) if column.type == "integer" else number
        if column.type == "number":
            yield from ((None, number) for number in (low + (high - low) / 3, 0.1 + 0.2, 1e12, -1e-12))
    else:
        yield from ((None, each) for each in (False, True))


def _bases(features: Any) -> Any:
    """Some rows of the reference, spread over those with the fewest nulls."""
    nulls = np.zeros(features.num_rows, dtype=np.int64)
    for values in features.columns:
        nulls += pc.is_null(single(values)).to_numpy(zero_copy_only=False)
    good = np.flatnonzero(nulls == nulls.min())
    return features.take(pa.array(good[np.unique(np.linspace(0, len(good) - 1, _BASES).round().astype(np.int64))]))


def _with_cell(rows: Any, place: int, value: Any) -> Any:
    """The rows with `value` in the column at `place`."""
    field = rows.schema.field(place)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    cells = pa.array([value] * rows.num_rows, kind)
    return rows.set_column(place, field.name, cells.dictionary_encode() if kind is not field.type else cells)


def _shuffled(features: Any) -> Any:
    rng = np.random.default_rng(0)
    count = min(features.num_rows, _SHUFFLED)
    columns = [
        features.column(place).take(pa.array(rng.permutation(features.num_rows)[:count]))
        for place in range(features.num_columns)
    ]
    return pa.table(columns, names=features.column_names)


def _alike(original: SklearnRuntime, compiled: CompiledRuntime, rows: Any, signature: Signature) -> bool:
    """Whether both answer the rows alike that are not the original's anyway; where one raises they are not."""
    try:
        found, own = _own(compiled, rows, signature)
        rows = rows.take(pa.array(own))
        expected = original.predict(to_model_input(rows, signature), class_from="probabilities")
    except Exception:  # both may raise anything
        return False
    return _difference(found, _answers(expected), signature) <= TOLERANCE


def _own(
    compiled: CompiledRuntime, features: Any, signature: Signature
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """(answers (m, k), the m rows that are not left to the original)."""
    batch = compiled.model_input(features, signature)
    own = np.flatnonzero(~batch.apart)
    return compiled.answers(batch.take(own)), own


def _answers(scores: Scores) -> npt.NDArray[np.float64]:
    """(n, k) probabilities, or (n, 1)."""
    if scores.probabilities is not None:
        return scores.probabilities
    return np.asarray(scores.prediction, dtype=np.float64).reshape(-1, 1)


def _difference(found: npt.NDArray[Any], expected: npt.NDArray[np.float64], signature: Signature) -> float:
    """The largest; infinite where one is finite and the other is not, or where their shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    scale: Any = 1.0
    if signature.output is not None and signature.output.kind == "regression":
        scale = np.maximum(1.0, np.abs(expected))
    with np.errstate(invalid="ignore"):
        off = np.abs(found - expected) / scale
    return float(np.nan_to_num(off, nan=np.inf).max(initial=0.0))
