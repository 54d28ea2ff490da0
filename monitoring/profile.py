"""The profile of some rows: how many values fell into each bin of the profile schema, and what never became a value.

The worker that scores a chunk makes its profile and stores it in the finishing transaction; profiles of chunks add up
to the profile of any window. It costs a sort per numeric column and a count of codes per category column, a few
per cent of the scoring itself. No ML library is imported here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from monitoring.counting import (
    MAX_UNSEEN_VALUES,
    MISSING,
    NO_MOMENTS,
    NON_FINITE,
    NULLS,
    UNSEEN_CHARS,
    add_errors,
    category_bins,
    numeric_bins,
)
from monitoring.schema import (
    PROBABILITY,
    SCORE_BINS,
    SCORE_EDGES,
    CategoryColumn,
    NumericColumn,
    ProfiledColumn,
    ProfileSchema,
)
from monitoring.values import Counts, Floats, labels, numbers, probability_of
from records.payload import pack, unpack
from records.row_error import RowError

if TYPE_CHECKING:  # it imports scikit-learn
    from registry.scores import Scores

_FORMAT = b"\x01"
_DIGEST_BYTES = 32
_ROWS = struct.Struct("<qq")


@dataclass(frozen=True)
class ColumnProfile:
    """What a profile holds of one column; each cell is counted once.

    Attributes:
        bins: values by bin of the schema.
        nulls: null cells of rows without a row error.
        missing: row errors of this column because a value was missing that must be there.
        non_finite, type_errors: cells that are infinite or NaN, or not of the column's type.
        total, squares: sums of the values' differences from the schema's center, and of their squares.
        minimum, maximum: of the values; infinite when there are none.
        unseen_values: up to 20 words that the reference does not have.
    """

    column: ProfiledColumn
    bins: Counts
    nulls: int
    missing: int
    non_finite: int
    type_errors: int
    total: float
    squares: float
    minimum: float
    maximum: float
    unseen_values: tuple[str, ...]

    @property
    def values(self) -> int:
        return int(self.bins.sum())

    @property
    def cells(self) -> int:
        """All that is known of the column: the rows that an error of another column stopped are not in it."""
        return self.values + self.nulls + self.missing + self.non_finite + self.type_errors

    @property
    def below(self) -> int:
        """Numbers smaller than any of the reference."""
        return int(self.bins[0]) if len(self.bins) > 1 else 0

    @property
    def above(self) -> int:
        """Numbers larger than any of the reference."""
        return int(self.bins[-1]) if len(self.bins) > 1 else 0

    @property
    def mean(self) -> float:
        assert isinstance(self.column, NumericColumn)
        return self.column.center + self.total / self.values if self.values else float("nan")

    @property
    def deviation(self) -> float:
        """The standard deviation of the values (divided by n)."""
        if not self.values:
            return float("nan")
        mean = self.total / self.values
        return float(np.sqrt(max(self.squares / self.values - mean * mean, 0.0)))


@dataclass(frozen=True, eq=False)
class Profile:
    """Counters of `rows` rows that were scored and `errored` rows that were not, over the columns of a schema.

    Attributes:
        counts: the bins of all columns, one after the other, as `schema.slices` says.
        faults: (columns, 4): null cells, missing values, not finite, of a wrong type.
        moments: (columns, 4): sum, sum of squares, minimum, maximum.
        unseen: by column, words that the reference does not have.
    """

    schema: ProfileSchema
    rows: int
    errored: int
    counts: Counts
    faults: Counts
    moments: Floats
    unseen: Mapping[str, tuple[str, ...]]

    def column(self, name: str) -> ColumnProfile:
        """
        Raises:
            KeyError: the schema has no such column.
        """
        place = self.schema.places[name]
        nulls, missing, non_finite, type_errors = self.faults[place].tolist()
        total, squares, minimum, maximum = self.moments[place].tolist()
        return ColumnProfile(
            column=self.schema.columns[place],
            bins=self.counts[self.schema.slices[place]],
            nulls=nulls,
            missing=missing,
            non_finite=non_finite,
            type_errors=type_errors,
            total=total,
            squares=squares,
            minimum=minimum,
            maximum=maximum,
            unseen_values=self.unseen.get(name, ()),
        )

    def to_bytes(self) -> bytes:
        """A few kilobytes: a version byte, the schema's digest, and the counters as one zstd frame."""
        integers = np.concatenate([self.counts, self.faults.ravel()])
        parts = [
            _ROWS.pack(self.rows, self.errored),
            # All lowest bytes, then all second bytes and so on: the upper ones are runs of zeros, which pack well.
            integers.astype("<i8").view(np.uint8).reshape(-1, 8).T.tobytes(),
            self.moments.astype("<f8").tobytes(),
            json.dumps(self.unseen, ensure_ascii=False).encode(),
        ]
        return _FORMAT + bytes.fromhex(self.schema.digest) + pack(b"".join(parts))


def profile_of(schema: ProfileSchema, features: pa.Table, scores: Scores, errors: Sequence[RowError]) -> Profile:
    """The profile of a chunk.

    Args:
        features: as `registry.parsed.Parsed` has them, the rows for which the model then failed among them. A column
            that is not there at all is missing in each row.
        scores: of the rows that were scored.
        errors: all row errors of the chunk. One of a column counts as a fault of that column.
    """
    columns, moments, unseen = [], [], {}
    faults = np.zeros((len(schema.columns), 4), np.int64)
    for place, column in enumerate(schema.columns):
        if column.input is not None and column.input not in features.column_names:
            faults[place, MISSING] = features.num_rows
            columns.append(np.zeros(column.bins, np.int64))
            moments.append(NO_MOMENTS)
            continue
        values = _cells(column, schema, features, scores)
        faults[place, NULLS] = values.null_count
        if isinstance(column, CategoryColumn):
            counts, unseen[column.name] = category_bins(column, values)
            moments.append(NO_MOMENTS)
        else:
            counts, found = numeric_bins(column, numbers(values))
            moments.append(found)
            faults[place, NON_FINITE] = len(values) - values.null_count - counts.sum()
        columns.append(counts)
    add_errors(faults, schema, errors)
    return Profile(
        schema=schema,
        rows=len(scores.prediction),
        errored=len(errors),
        counts=np.concatenate(columns),
        faults=faults,
        moments=np.array(moments, np.float64),
        unseen={name: words for name, words in unseen.items() if words},
    )


def merge(profiles: Iterable[Profile]) -> Profile:
    """The profile of all their rows; counts are exact, sums of floats are so to rounding.

    Raises:
        ValueError: there are none, or they are of more than one schema.
    """
    remaining = iter(profiles)
    first = next(remaining, None)
    if first is None:
        raise ValueError("there is no profile to merge")
    schema, rows, errored, unseen = first.schema, first.rows, first.errored, dict(first.unseen)
    counts, faults, moments = first.counts.copy(), first.faults.copy(), first.moments.copy()
    for profile in remaining:
        if profile.schema.digest != schema.digest:
            raise ValueError(
                f"profiles of two schemas ({schema.digest[:12]} and {profile.schema.digest[:12]}) do not merge; "
                "audit the windows before and after the reference changed by themselves"
            )
        rows, errored = rows + profile.rows, errored + profile.errored
        counts += profile.counts
        faults += profile.faults
        moments[:, :2] += profile.moments[:, :2]
        np.minimum(moments[:, 2], profile.moments[:, 2], out=moments[:, 2])
        np.maximum(moments[:, 3], profile.moments[:, 3], out=moments[:, 3])
        for name, words in profile.unseen.items():
            unseen[name] = tuple(dict.fromkeys([*unseen.get(name, ()), *words]))[:MAX_UNSEEN_VALUES]
    return Profile(schema, rows, errored, counts, faults, moments, unseen)


def empty(schema: ProfileSchema) -> Profile:
    """The profile of no rows."""
    width = len(schema.columns)
    bins = schema.slices[-1].stop if schema.slices else 0
    moments = np.tile(np.array(NO_MOMENTS, np.float64), (width, 1))
    return Profile(schema, 0, 0, np.zeros(bins, np.int64), np.zeros((width, 4), np.int64), moments, {})


def from_bytes(schema: ProfileSchema, data: bytes) -> Profile:
    """The profile that `to_bytes` stored.

    Raises:
        ValueError: it is of another schema, or in a format of a later release.
        ScorehouseError: it is damaged.
    """
    if data[:1] != _FORMAT:
        raise ValueError(f"the profile has format {data[:1].hex()}, this release reads {_FORMAT.hex()}; upgrade it")
    digest = data[1 : 1 + _DIGEST_BYTES].hex()
    if digest != schema.digest:
        raise ValueError(f"the profile is of schema {digest[:12]}, not of {schema.digest[:12]}")
    width = len(schema.columns)
    bins = schema.slices[-1].stop if schema.slices else 0
    size = 8 * (bins + 4 * width)  # of the integers
    words = width * MAX_UNSEEN_VALUES * UNSEEN_CHARS * 8
    content = unpack(data[1 + _DIGEST_BYTES :], _ROWS.size + size + 32 * width + words)
    rows, errored = _ROWS.unpack_from(content)
    shuffled = np.frombuffer(content, np.uint8, size, _ROWS.size).reshape(8, -1)
    integers = np.ascontiguousarray(shuffled.T).view("<i8").ravel().astype(np.int64)
    moments = np.frombuffer(content, "<f8", 4 * width, _ROWS.size + size).astype(np.float64).reshape(-1, 4)
    unseen = {name: tuple(words) for name, words in json.loads(content[_ROWS.size + size + 32 * width :]).items()}
    return Profile(schema, rows, errored, integers[:bins], integers[bins:].reshape(-1, 4), moments, unseen)


def score_histogram(profile: Profile) -> Counts:
    """How many probabilities fell into each of 200 equal bins of [0, 1]; the last one holds 1 too.

    Raises:
        KeyError: the model has no probabilities.
    """
    found = profile.column(PROBABILITY)
    assert isinstance(found.column, NumericColumn)
    starts = np.concatenate([[0], np.searchsorted(found.column.edge_array, SCORE_EDGES) + 1])
    assert len(starts) == SCORE_BINS
    return np.add.reduceat(found.bins, starts)


def _cells(column: ProfiledColumn, schema: ProfileSchema, features: pa.Table, scores: Scores) -> Any:
    """The column as one arrow array."""
    if column.input is not None:
        chunks = features.column(column.input)
        return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    if column.name != PROBABILITY:
        return labels(scores.prediction)
    assert scores.probabilities is not None, "the schema is of a model with probabilities"
    return pa.array(probability_of(scores.probabilities, schema.positive))
