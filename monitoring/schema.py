"""The profile schema of a model version: which bins its columns are counted in, frozen when its reference is read.

Every profile of the version has the same bins, so profiles add up for ever, and an audit over any window is a sum of
small arrays. A changed reference gives another schema, with another digest; profiles of two schemas never merge.

A numeric column is cut by edges into half-open bins: bin i holds `edges[i - 1] <= value < edges[i]`, the first and the
last bin are open. The edges are 127 quantiles of the reference, its smallest value, and the successor of its largest
one; so the first bin counts what lies below the reference's range and the last what lies above. A value that alone has
1/128 of the mass (each value, when there are at most 128) gets a bin of its own between itself and the next float.
The distance of two distribution functions is then exact at each edge, and exact everywhere for a reference of at most
128 values. Quantiles also keep one absurd value from stretching the bins, as it does to bins of equal width.

No ML library is imported here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from monitoring.values import Counts, Floats, labels, numbers, probability_of, word_counts
from registry.signature import Column, ColumnType, Output, Signature

if TYPE_CHECKING:  # it imports scikit-learn
    from registry.scores import Scores

QUANTILES = 128
MAX_CATEGORIES = 100
SCORE_BINS = 200
PREDICTION, PROBABILITY = "prediction", "probability"
#: The edges between the equal bins of a probability; 0.5 is one of them.
SCORE_EDGES = np.arange(1, SCORE_BINS) / SCORE_BINS


class _Profiled(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="as audits call the column")
    type: ColumnType
    input: str | None = Field(description="the column of the signature; None for an output of the model")


class NumericColumn(_Profiled):
    """A column of numbers; of a text column the numbers are the lengths in characters."""

    kind: Literal["numeric"] = "numeric"
    edges: tuple[float, ...] = Field(description="ascending; none when the reference has no values")
    center: float = Field(description="the reference's median: sums are of differences from it, to keep their digits")

    @property
    def bins(self) -> int:
        return len(self.edges) + 1

    @cached_property
    def edge_array(self) -> Floats:
        return np.array(self.edges, np.float64)


class CategoryColumn(_Profiled):
    """A column of words. Its bins: each of `categories`, then the `others` together, then the unseen words."""

    kind: Literal["category"] = "category"
    categories: tuple[str, ...] = Field(description="the most frequent of the reference first, at most 100")
    others: tuple[str, ...] = Field(description="the words of the reference that are not among them, sorted")

    @property
    def bins(self) -> int:
        return len(self.categories) + 2

    @property
    def unseen(self) -> int:
        """The bin of words that the reference does not have."""
        return len(self.categories) + 1

    @cached_property
    def bin_of(self) -> dict[str, int]:
        """By word of the reference, its bin."""
        others = dict.fromkeys(self.others, len(self.categories))
        return {word: at for at, word in enumerate(self.categories)} | others


ProfiledColumn = Annotated[NumericColumn | CategoryColumn, Field(discriminator="kind")]


class ProfileSchema(BaseModel):
    """The columns in the order of the signature, then `prediction` and, if the model has probabilities, `probability`.

    A feature that is itself called `prediction` or `probability` is audited as `prediction (input)`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    columns: tuple[ProfiledColumn, ...]
    positive: int | None = Field(description="which probability is profiled; None: the highest of each row")

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) of the schema as canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def places(self) -> dict[str, int]:
        """By name, the place of a column among `columns`."""
        return {column.name: place for place, column in enumerate(self.columns)}

    @cached_property
    def slices(self) -> list[slice]:
        """By place, where the bins of a column stand in one array that holds those of all."""
        ends = list(accumulate(column.bins for column in self.columns))
        return [slice(end - column.bins, end) for column, end in zip(self.columns, ends, strict=True)]


def schema_of(signature: Signature, features: pa.Table, scores: Scores) -> ProfileSchema:
    """The schema from a reference.

    Args:
        features: the reference's features (n rows), as `registry.parsed.Parsed` has them.
        scores: what the model answers to them.

    Raises:
        ValueError: the signature has no output: the model was not examined.
    """
    output = signature.output
    if output is None:
        raise ValueError("the signature has no output; examine the model before its reference is profiled")
    positive = output.classes.index(output.positive) if output.classes and output.positive is not None else None
    columns = [_feature(column, features.column(column.name).combine_chunks()) for column in signature.columns]
    return ProfileSchema(columns=(*columns, *_outputs(output, scores, positive)), positive=positive)


def score_edges(edges: Floats) -> Floats:
    """The edges of a probability: those of the reference's quantiles, and 199 that cut [0, 1] into 200 equal bins.

    The equal bins alone would be blind where a model scores rare events, all of them below 0.005.
    """
    return np.asarray(np.union1d(edges, SCORE_EDGES), np.float64)


def quantile_edges(values: Floats) -> Floats:
    """The edges for finite numbers (n,), as the module says; none for n = 0."""
    distinct, counts = np.unique(values, return_counts=True)
    if not len(distinct):
        return np.empty(0)
    quantiles = np.quantile(values, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf")
    alone = distinct if len(distinct) <= QUANTILES else distinct[counts * QUANTILES >= len(values)]
    ends = np.nextafter(np.append(alone, distinct[-1]), np.inf)
    edges = np.unique(np.concatenate([distinct[:1], quantiles, alone, ends]))
    finite: Floats = edges[np.isfinite(edges)]
    return finite


def _feature(column: Column, values: Any) -> NumericColumn | CategoryColumn:
    name = f"{column.name} (input)" if column.name in (PREDICTION, PROBABILITY) else column.name
    if column.type == "boolean":
        return CategoryColumn(name=name, type=column.type, input=column.name, categories=("false", "true"), others=())
    if column.type == "category":
        return _category(name, column.name, *word_counts(values))
    return _numeric(name, column.type, column.name, numbers(values))


def _outputs(output: Output, scores: Scores, positive: int | None) -> Iterator[NumericColumn | CategoryColumn]:
    if output.classes is None:
        yield _numeric(PREDICTION, "number", None, np.asarray(scores.prediction, np.float64))
        return
    words, counts = word_counts(labels(scores.prediction))
    known = word_counts(pa.array(output.classes))[0]
    never = [word for word in known if word not in set(words)]  # a class of the model is not unseen
    yield _category(PREDICTION, None, [*words, *never], np.append(counts, np.zeros(len(never), np.int64)))
    if scores.probabilities is not None:
        column = _numeric(PROBABILITY, "number", None, probability_of(scores.probabilities, positive))
        edges = score_edges(column.edge_array)
        yield NumericColumn(name=PROBABILITY, type="number", input=None, edges=_tuple(edges), center=column.center)


def _numeric(name: str, type: ColumnType, input: str | None, values: Floats) -> NumericColumn:
    finite = values[np.isfinite(values)]
    center = float(np.median(finite)) if len(finite) else 0.0
    return NumericColumn(name=name, type=type, input=input, edges=_tuple(quantile_edges(finite)), center=center)


def _category(name: str, input: str | None, words: list[str], counts: Counts) -> CategoryColumn:
    frequent = sorted(zip(words, counts.tolist(), strict=True), key=lambda item: (-item[1], item[0]))
    ordered = [word for word, _ in frequent]
    categories, others = ordered[:MAX_CATEGORIES], sorted(ordered[MAX_CATEGORIES:])
    return CategoryColumn(name=name, type="category", input=input, categories=tuple(categories), others=tuple(others))


def _tuple(edges: Floats) -> tuple[float, ...]:
    return tuple(edges.tolist())
