"""Two versions on the same rows: how many predictions differ, how far the scores have moved, which one is faster.

All of it is counters that add up piece by piece, and fit into a deployment's `checks` between two pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.counting import category_bins, numeric_bins
from monitoring.reference import text_of
from monitoring.schema import PREDICTION, PROBABILITY, CategoryColumn, ProfiledColumn, ProfileSchema
from monitoring.statistics import psi, super_bins
from monitoring.values import Counts, labels, probability_of
from registry.scoring import Scored
from registry.signature import Output

# As many bins as audits of drift compare scores in.
_PSI_BINS = 10
# Less than this of production's time is no measure of speed.
_LEAST_SECONDS = 0.01
_EXAMPLES = 5


@dataclass
class Comparison:
    """What is known of the rows that were replayed so far.

    Attributes:
        compared: rows that both have scored. Not taken are those that production scores and the version does not; they
            count as flipped. Skipped are those that production cannot score.
        difference, total, squares: of a regression: sums of absolute differences, of production's predictions, of
            their squares.
        seconds: of processor time that production and the version took to score, without parsing.
        examples: why rows were not taken, by the first few of them.
    """

    rows: int = 0
    compared: int = 0
    flipped: int = 0
    not_taken: int = 0
    skipped: int = 0
    difference: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    bins: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    examples: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def add(self, sides: Sides, production: Scored, version: Scored, seconds: tuple[float, float]) -> None:
        """Add a piece that both have scored; rows as its parsing numbered them."""
        shared, one, other = np.intersect1d(production.rows, version.rows, assume_unique=True, return_indices=True)
        missing = len(production.rows) - len(shared)
        self.rows += len(production.rows) + len(production.errors)
        self.compared += len(shared)
        self.skipped += len(production.errors)
        self.not_taken += missing
        if missing:
            scored = set(production.rows.tolist())
            self._name(f"{error.code}: {error.message}" for error in version.errors if error.row in scored)
        self.seconds = [old + new for old, new in zip(self.seconds, seconds, strict=True)]
        if len(shared):
            self._compare(sides, _rows(production, one), _rows(version, other))

    def add_not_taken(self, production: Scored, reason: str) -> None:
        """Add a piece that the version takes no row of."""
        self.rows += len(production.rows) + len(production.errors)
        self.skipped += len(production.errors)
        self.not_taken += len(production.rows)
        self._name([reason])

    def figures(self, sides: Sides) -> dict[str, Any]:
        """What a gate judges, and people read."""
        judged = self.compared + self.not_taken
        found: dict[str, Any] = {"rows": self.rows, "compared": self.compared}
        if sides.regression:
            found["difference"] = self._difference(judged) if judged else None
        else:
            found["flipped"] = round((self.flipped + self.not_taken) / judged, 6) if judged else None
        before, after = self.seconds
        return found | {
            "psi": self._psi(sides),
            "slowdown": round(after / before, 3) if before >= _LEAST_SECONDS and self.compared else None,
            "not_taken": self.not_taken,
            "skipped": self.skipped,
            "examples": self.examples,
        }

    def _compare(self, sides: Sides, production: Scored, version: Scored) -> None:
        before, after = production.prediction, version.prediction
        if sides.regression:
            self.difference += float(np.abs(after - before).sum())
            self.total += float(before.sum())
            self.squares += float(np.square(before).sum())
        else:
            self.flipped += sum(text_of(a) != text_of(b) for a, b in zip(before.tolist(), after.tolist(), strict=True))
        counts = sides.counts(production, version)
        self.bins = [
            (np.array(old or 0) + new).tolist()
            for old, new in zip(self.bins or [[]] * len(counts), counts, strict=True)
        ]

    def _difference(self, judged: int) -> float:
        """In standard deviations of production; a row that was not taken counts as one."""
        mean = self.total / self.compared if self.compared else 0.0
        variance = self.squares / self.compared - mean * mean if self.compared else 0.0
        deviation = math.sqrt(variance) if variance > 0.0 else 1.0
        return round((self.difference / deviation + self.not_taken) / judged, 6)

    def _psi(self, sides: Sides) -> float | None:
        if not self.bins:
            return None
        before, after = (np.array(side, np.int64) for side in self.bins)
        ordered = not isinstance(sides.column, CategoryColumn)
        grouped = super_bins(before, after, _PSI_BINS) if ordered else (before, after)
        return round(psi(*grouped)[0], 6)

    def _name(self, reasons: Iterable[str]) -> None:
        for reason in reasons:
            if len(self.examples) < _EXAMPLES and reason not in self.examples:
                self.examples.append(reason)


@dataclass(frozen=True)
class Sides:
    """What production and the version answer with, and the profile schema of production, which has the bins."""

    production: Output
    version: Output
    schema: ProfileSchema | None

    @property
    def regression(self) -> bool:
        return self.production.kind == "regression"

    @cached_property
    def column(self) -> ProfiledColumn | None:
        """The column of the schema that counts the scores: the probability where both mean the same one by it."""
        one, other = self.production, self.version
        same = one.has_probability and other.has_probability and one.positive == other.positive
        if self.schema is None:
            return None
        return self.schema.columns[self.schema.places[PROBABILITY if same else PREDICTION]]

    def counts(self, production: Scored, version: Scored) -> list[Counts]:
        """The scores of each by bin; none without a schema."""
        if self.column is None:
            return []
        return [
            _counted(self.column, scored, output)
            for scored, output in ((production, self.production), (version, self.version))
        ]


def _counted(column: ProfiledColumn, scored: Scored, output: Output) -> Counts:
    if isinstance(column, CategoryColumn):
        return category_bins(column, labels(scored.prediction))[0]
    if column.name != PROBABILITY:
        return numeric_bins(column, np.asarray(scored.prediction, np.float64))[0]
    assert scored.probabilities is not None, "the column is that of versions with probabilities"
    place = output.classes.index(output.positive) if output.classes and output.positive is not None else None
    return numeric_bins(column, probability_of(scored.probabilities, place))[0]


def _rows(scored: Scored, places: npt.NDArray[np.int64]) -> Scored:
    """Some of the rows that were scored."""
    probabilities = None if scored.probabilities is None else scored.probabilities[places]
    return Scored(scored.rows[places], None, scored.prediction[places], probabilities, [])
