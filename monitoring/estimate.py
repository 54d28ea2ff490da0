"""Estimated performance of a binary classifier before its labels come, from the scores alone.

This is confidence-based performance estimation as NannyML's documentation describes it (How it works: performance
estimation): a calibrated score c is the chance that the row is positive, so that a row predicted positive adds c to the
expected true positives and 1 - c to the false ones. Scores are calibrated by isotonic regression on the labelled reference
(Zadrozny and Elkan, KDD 2002), which should be rows that the model was not fitted on. It sees a shift of the scores
and is blind to a change of P(label | inputs); `agrees` finds that out when labels come. For binary classification
only. Only numpy is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.intervals import Metric, Z, ratio
from monitoring.roc_auc import binned_roc_auc
from monitoring.score_bins import SCORE_BINS, score_bin

Floats = npt.NDArray[np.float64]

#: The estimates that labels are held against, and a difference (of each) that does not matter.
COMPARED = ("accuracy", "f1", "roc_auc")
IMMATERIAL = 0.02
#: Normal quantile of 1 % over three comparisons, two-sided.
SIGNIFICANT = 2.935
_DRAWS = 200
_SEED = 20_130_101


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often rows of each score bin are positive.

    Attributes:
        probabilities: (bins,) ascending.
        rows: (bins,) rows of the reference behind each of them; bins that were pooled share theirs.
        edges: (bins + 1,) of the score, ascending from 0 to 1.
    """

    probabilities: Floats
    rows: Floats
    edges: Floats

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("probabilities", "rows", "edges")}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        return cls(*(np.array(stored[name], np.float64) for name in ("probabilities", "rows", "edges")))


def calibration(scores: npt.ArrayLike, labels: npt.ArrayLike, edges: Floats | None = None) -> Calibration:
    """Fit a calibration to a labelled reference.

    Args:
        scores: (n,) probability of the positive class; `labels` (n,) true for positive.
        edges: of the bins in which the scores of windows are counted; 200 of equal width unless given.

    Raises:
        ValueError: there are no rows.
    """
    edges = np.linspace(0, 1, SCORE_BINS + 1) if edges is None else edges
    place, positive = score_bin(np.asarray(scores, np.float64), edges), np.asarray(labels, bool)
    if not len(place):
        raise ValueError("a calibration needs labelled rows")
    rows = np.bincount(place, minlength=len(edges) - 1)
    positives = np.bincount(place, positive, minlength=len(edges) - 1).astype(np.float64)
    filled = np.flatnonzero(rows)
    probabilities, behind = _isotonic(positives[filled], rows[filled])
    middles = (edges[1:] + edges[:-1]) / 2
    nearest = np.abs(middles[:, None] - middles[filled]).argmin(axis=1)  # an empty bin takes after its neighbour
    return Calibration(probabilities[nearest], behind[nearest], edges)


def estimated(fitted: Calibration, score_histogram: npt.ArrayLike, threshold: float = 0.5) -> dict[str, Metric]:
    """Expected metrics of a window, named as in `monitoring.accuracy`; none for an empty histogram.

    The interval is where 95 % of 200 seeded draws fall: the chance of each pooled bin from Jeffreys' beta posterior of
    the reference, then the labels of each bin from the binomial. So it is where the metric of the window's own labels is to
    be expected, as long as P(label | score) is what it was.

    Args:
        score_histogram: (bins,) rows of the window by score, in the bins of the calibration.
        threshold: the score from which the model predicts positive; an edge of the bins.

    Raises:
        ValueError: the histogram has other bins, or the threshold is no edge of them.
    """
    histogram = np.asarray(score_histogram, np.int64)
    first = int(np.abs(fitted.edges - threshold).argmin())
    if histogram.shape != fitted.probabilities.shape or abs(fitted.edges[first] - threshold) > 1e-9:
        raise ValueError(
            f"expected a histogram of {len(fitted.probabilities)} bins and a threshold that is one of their edges; "
            f"got {histogram.shape} and {threshold}"
        )
    if not histogram.any():
        return {}
    expected = _metrics(histogram, (histogram * fitted.probabilities)[None], first)
    drawn = _metrics(histogram, _drawn_positives(fitted, histogram), first)
    return {name: _metric(float(value[0]), drawn[name]) for name, value in expected.items() if np.isfinite(value[0])}


def agrees(estimate: Mapping[str, Metric], realised: Mapping[str, Metric]) -> bool:
    """Whether an estimate may stand beside the metrics of the same window's labels, once these have come.

    False when accuracy, F1 or ROC AUC differ by more than 0.02, significantly so at 1 % over the three (Bonferroni):
    P(label | inputs) has changed since the reference, and no estimate is to be shown before a new calibration. True while
    nothing can be compared.
    """
    pairs = [(estimate[name], realised[name]) for name in COMPARED if name in estimate and name in realised]
    return not any(_differ(guess, truth) for guess, truth in pairs)


def _differ(guess: Metric, truth: Metric) -> bool:
    # Half of an interval is 1.96 standard errors.
    error = math.hypot(guess.high - guess.low, truth.high - truth.low) / (2 * Z)
    return abs(guess.value - truth.value) > max(IMMATERIAL, SIGNIFICANT * error)


def _isotonic(positives: Floats, rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Isotonic regression of bins, by pooling adjacent violators: (bins,) probabilities and rows of the pools."""
    pools: list[tuple[float, float, int]] = []  # positives, rows, bins
    for hits, count in zip(positives.tolist(), rows.tolist(), strict=True):
        pool = (hits, count, 1)
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    hits_of, rows_of, width = (np.array(column) for column in zip(*pools, strict=True))
    return np.repeat(hits_of / rows_of, width), np.repeat(rows_of.astype(np.float64), width)


def _drawn_positives(fitted: Calibration, histogram: npt.NDArray[np.int64]) -> Floats:
    """(draws, bins) positives that a window with this histogram may turn out to have."""
    random = np.random.default_rng(_SEED)
    # The probabilities of two pools differ, so equal ones belong to one pool.
    first, pool = np.unique(fitted.probabilities, return_index=True, return_inverse=True)[1:]
    hits, rows = (fitted.probabilities * fitted.rows)[first], fitted.rows[first]
    chances = random.beta(hits + 0.5, rows - hits + 0.5, (_DRAWS, len(first)))[:, pool]
    return random.binomial(histogram, chances).astype(np.float64)


def _metrics(histogram: npt.NDArray[np.int64], positives: Floats, first: int) -> dict[str, Floats]:
    """(draws,) of each metric; `positives` (draws, bins); bins from `first` on are predicted positive."""
    negatives = histogram - positives
    hits, misses = positives[:, first:].sum(axis=1), positives[:, :first].sum(axis=1)
    alarms, passes = negatives[:, first:].sum(axis=1), negatives[:, :first].sum(axis=1)
    rows = histogram.sum()
    share = (hits + misses) / rows
    of_positive, of_negative = _of_class(hits, alarms, misses), _of_class(passes, misses, alarms)
    found = {name: share * of_positive[name] + (1 - share) * of_negative[name] for name in of_positive}
    found |= {f"{name}_positive": value for name, value in of_positive.items()}
    return found | {"accuracy": (hits + passes) / rows, "roc_auc": _roc_auc(positives, negatives)}


def _of_class(hits: Floats, false_hits: Floats, missed: Floats) -> dict[str, Floats]:
    return {
        "precision": ratio(hits, hits + false_hits),
        "recall": ratio(hits, hits + missed),
        "f1": ratio(2 * hits, 2 * hits + false_hits + missed),
    }


def _roc_auc(positives: Floats, negatives: Floats) -> Floats:
    """NaN where a draw has one class only; rows of one bin are ties."""
    ties = np.full(positives.shape[1], 0.5)
    both = (positives.sum(axis=1) > 0) & (negatives.sum(axis=1) > 0)
    return np.array(
        [
            binned_roc_auc(np.stack(counts), ties)[0] if defined else np.nan
            for *counts, defined in zip(negatives, positives, both, strict=True)
        ]
    )


def _metric(value: float, drawn: Floats) -> Metric:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Metric(value, min(value, float(low)), max(value, float(high)))
