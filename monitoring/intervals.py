"""A metric with its 95 % interval, and the closed forms of such intervals. Only numpy is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

#: 97.5 % quantile of the normal distribution.
Z = 1.959963984540054


@dataclass(frozen=True)
class Metric:
    """A value and its 95 % interval [low, high]."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def proportion(hits: Any, rows: Any) -> Metric:
    """Share of hits; the interval is Wilson's (Journal of the American Statistical Association 22, 1927, 209-212).

    Without rows the value is 0, as scikit-learn has it, and the interval is all of [0, 1].
    """
    k, n = float(hits), float(rows)
    if not n:
        return Metric(0.0, 0.0, 1.0)
    share, spread = k / n, Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # At 0 and n hits the ends are exactly 0 and 1; rounding must not put the value outside.
    return Metric(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def mean(sums: Any, rows: int, *, lowest: float = 0.0) -> Metric:
    """Mean of n values by the central limit theorem; `sums` are the sum of them and of their squares.

    A single value has no interval: the ends are the value.
    """
    value, square = (float(total) / rows for total in sums)
    variance = max(square - value**2, 0.0) / max(rows - 1, 1)
    return around(value, math.sqrt(variance), lowest=lowest, highest=math.inf)


def around(value: float, error: float, *, lowest: float = 0.0, highest: float = 1.0) -> Metric:
    """Value ± 1.96 standard errors, cut at the bounds of the metric."""
    return Metric(value, max(lowest, value - Z * error), min(highest, value + Z * error))


def ratio(numerator: Any, denominator: Any) -> Any:
    """Element by element; 0 where the denominator is 0, as with `zero_division=0` of scikit-learn."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(denominator)), where=np.asarray(denominator) != 0)
