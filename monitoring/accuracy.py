"""How well a version did: metrics of its outcomes with 95 % intervals, and whether they are worse than the reference.

`metrics` gives what scikit-learn gives for the same rows, under the names that the reference has; `judged` is the
`accuracy` audit of a window. Only numpy is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from monitoring.intervals import Metric, around, mean, proportion, ratio
from monitoring.outcomes import ClassOutcomes, ErrorOutcomes, Outcomes
from monitoring.roc_auc import binned_roc_auc
from monitoring.score_bins import CALIBRATION_STARTS, SCORE_EDGES

Status = Literal["ok", "warn", "critical", "insufficient_data", "provisional"]

MIN_LABELS = 200
MIN_LABELS_PER_CLASS = 30
MIN_COVERAGE = 0.8
#: The metrics that are compared with the reference. ROC AUC is among them because a model of a rare class keeps its
#: accuracy and weighted F1 when it has lost all its power.
JUDGED_SCORES = ("accuracy", "f1", "roc_auc")
JUDGED_ERRORS = ("mae", "rmse")
_DRAWS = 200
_SEED = 20_130_101


@dataclass(frozen=True)
class Accuracy:
    """The accuracy audit of a window; `to_json` is its shape in the interface, without the names of the model.

    Attributes:
        scored: predictions of the window; `labelled` those with a label, `unknown` those whose label names no class
            (or, for regression, no number).
        worse: the metrics that are worse than the reference by more than the tolerance, and how much.
    """

    scored: int
    labelled: int
    unknown: int
    status: Status
    metrics: dict[str, Metric]
    reference: dict[str, float] | None
    worse: dict[str, Literal["warn", "critical"]] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        return self.labelled / self.scored if self.scored else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "scored": self.scored,
            "labelled": self.labelled,
            "unknown": self.unknown,
            "coverage": self.coverage,
            "status": self.status,
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "reference": self.reference,
            "worse": self.worse,
        }


def judged(
    outcomes: Outcomes,
    scored: int,
    reference: Mapping[str, float] | None,
    *,
    tolerance: float,
    old_enough: bool,
) -> Accuracy:
    """Compare a window with the reference.

    `insufficient_data` below 200 labels, or 30 of any class; else `provisional` below 80 % coverage, unless the window
    is old enough for its labels to have come; else `warn` when the whole interval of accuracy, F1 or ROC AUC lies
    below reference - tolerance, or that of MAE or RMSE above reference x (1 + tolerance); `critical` at twice the
    tolerance; else `ok`. A metric that the reference lacks is not compared.

    Args:
        scored: predictions of the window, with or without a label.
        reference: metrics of the version on its reference (`registry.metrics`).
    """
    found = metrics(outcomes)
    status: Status = "ok"
    worse: dict[str, Literal["warn", "critical"]] = {}
    if not _sufficient(outcomes):
        status = "insufficient_data"
    elif not old_enough and outcomes.labelled / max(scored, 1) < MIN_COVERAGE:
        status = "provisional"
    else:
        worse = _worse(found, reference or {}, tolerance)
        if worse:
            status = "critical" if "critical" in worse.values() else "warn"
    told = None if reference is None else dict(reference)
    return Accuracy(scored, outcomes.labelled, outcomes.unknown, status, found, told, worse)


def metrics(outcomes: Outcomes) -> dict[str, Metric]:
    """The metrics that the outcomes define; none without rows.

    Classification: accuracy; precision, recall and f1 weighted by the support of each class; for two classes the same of
    the positive one (`…_positive`); with probabilities log_loss, and for two classes brier, ece (20 bins) and, when
    both classes occur, roc_auc. Regression: mae, rmse, bias (mean of prediction - label), and r2 unless all labels are
    the same. A label of an unknown class counts as wrong in those of the predicted class, and nowhere in the others.
    """
    if isinstance(outcomes, ErrorOutcomes):
        return _regression(outcomes) if outcomes.rows else {}
    if not outcomes.labelled:
        return {}
    found = _of_classes(outcomes.confusion)
    if outcomes.positive is not None:
        found |= _of_positive(outcomes.confusion, outcomes.positive)
    return found | (_of_probabilities(outcomes) if outcomes.scored else {})


def _sufficient(outcomes: Outcomes) -> bool:
    if isinstance(outcomes, ErrorOutcomes):
        return outcomes.rows >= MIN_LABELS
    per_class = outcomes.confusion[:-1].sum(axis=1)
    return outcomes.labelled >= MIN_LABELS and int(per_class.min()) >= MIN_LABELS_PER_CLASS


def _worse(
    found: Mapping[str, Metric], reference: Mapping[str, float], tolerance: float
) -> dict[str, Literal["warn", "critical"]]:
    shortfall = {
        name: reference[name] - found[name].high for name in JUDGED_SCORES if name in found and name in reference
    }
    excess = {  # as a share, because errors have the unit of the label
        name: found[name].low / reference[name] - 1 for name in JUDGED_ERRORS if name in found and reference.get(name)
    }
    beyond = {name: by for name, by in (shortfall | excess).items() if by > tolerance}
    return {name: "critical" if by > 2 * tolerance else "warn" for name, by in beyond.items()}


def _of_classes(confusion: npt.NDArray[np.int64]) -> dict[str, Metric]:
    """Accuracy, and the averages over classes; recall weighted by support is the accuracy.

    The intervals of precision and F1 are by the delta method on the multinomial counts (as Takahashi et al., Applied
    Intelligence 52, 2022, 4961-4972, have it for other averages).
    """
    rows, k = confusion.sum(), confusion.shape[1]
    share = confusion / rows
    hits, support, predicted = np.diagonal(share), share[:k].sum(axis=1), share.sum(axis=0)
    precision = ratio(hits, predicted)
    of_precision = ratio(support, predicted), precision, -ratio(support * precision, predicted)
    f1 = ratio(2 * hits, support + predicted)
    lost = -ratio(support * f1, support + predicted)
    of_f1 = ratio(2 * support, support + predicted), f1 + lost, lost
    accuracy = proportion(np.diagonal(confusion).sum(), rows)
    return {
        "accuracy": accuracy,
        "precision": around(float(support @ precision), _delta_error(confusion, *of_precision)),
        "recall": accuracy,
        "f1": around(float(support @ f1), _delta_error(confusion, *of_f1)),
    }


def _delta_error(
    confusion: npt.NDArray[np.int64],
    by_hits: npt.NDArray[np.float64],
    by_support: npt.NDArray[np.float64],
    by_predicted: npt.NDArray[np.float64],
) -> float:
    """Standard error of a function of shares, from its (k,) derivatives by hits, support and predictions of each class."""
    rows, k = confusion.sum(), confusion.shape[1]
    gradient = np.tile(by_predicted, (k + 1, 1))
    gradient[:k] += by_support[:, None] + np.diag(by_hits)
    middle = (confusion * gradient).sum() / rows
    return float(np.sqrt((confusion * (gradient - middle) ** 2).sum())) / float(rows)


def _of_positive(confusion: npt.NDArray[np.int64], positive: int) -> dict[str, Metric]:
    hits, guessed, true = confusion[positive, positive], confusion[:, positive].sum(), confusion[positive].sum()
    # F1 is 2q / (1 + q), where q is the share of hits among the rows that are positive by label or by prediction.
    overlap = proportion(hits, guessed + true - hits)
    f1 = Metric(*(2 * q / (1 + q) for q in (overlap.value, overlap.low, overlap.high)))
    return {
        "precision_positive": proportion(hits, guessed),
        "recall_positive": proportion(hits, true),
        "f1_positive": f1,
    }


def _of_probabilities(outcomes: ClassOutcomes) -> dict[str, Metric]:
    found = {"log_loss": mean(outcomes.log_loss, outcomes.scored)}
    if not outcomes.counts.size:
        return found
    found |= {"brier": mean(outcomes.squares, outcomes.scored), "ece": _calibration_error(outcomes)}
    if outcomes.counts.any(axis=1).all():
        found["roc_auc"] = around(*binned_roc_auc(outcomes.counts, _auc_within(outcomes)))
    return found


def _auc_within(outcomes: ClassOutcomes) -> npt.NDArray[np.float64]:
    """The AUC within each bin: 1/2 + (difference of mean scores) / width, exact if both densities are straight lines."""
    negative, positive = ratio(outcomes.score_sums, outcomes.counts)
    gap = np.where(outcomes.counts.all(axis=0), positive - negative, 0.0)
    return np.clip(0.5 + gap / np.diff(SCORE_EDGES), 0, 1)


def _calibration_error(outcomes: ClassOutcomes) -> Metric:
    """Expected calibration error: mean over rows of |share of positives - mean score| of their bin, 20 of equal width.

    The interval is from 200 multinomial draws of the counts. Sampling alone raises this metric, above 0 for a perfect
    model too: the low end takes off the most that it may have added (by the triangle inequality, the mean |drawn gap - gap|),
    the high end is that of the basic bootstrap (Davison, Hinkley, Bootstrap Methods, 1997, chapter 5).
    """
    rows = outcomes.scored
    counts = np.add.reduceat(outcomes.counts, CALIBRATION_STARTS, axis=1)
    scores = ratio(np.add.reduceat(outcomes.score_sums, CALIBRATION_STARTS, axis=1), counts)
    drawn = np.random.default_rng(_SEED).multinomial(rows, counts.ravel() / rows, _DRAWS).reshape(_DRAWS, *counts.shape)
    gaps = (counts[1] - (counts * scores).sum(axis=0)) / rows
    drawn_gaps = (drawn[:, 1] - (drawn * scores).sum(axis=1)) / rows
    value = float(np.abs(gaps).sum())
    added = float(np.quantile(np.abs(drawn_gaps - gaps).sum(axis=1), 0.975))
    low = float(np.quantile(np.abs(drawn_gaps).sum(axis=1), 0.025))
    return Metric(value, max(0.0, value - added), max(value, 2 * value - low))


def _regression(outcomes: ErrorOutcomes) -> dict[str, Metric]:
    rows = outcomes.rows
    squared = mean((outcomes.squared, outcomes.fourth), rows)
    found = {
        "mae": mean((outcomes.absolute, outcomes.squared), rows),
        "rmse": Metric(*(float(np.sqrt(end)) for end in (squared.value, squared.low, squared.high))),
        "bias": mean((outcomes.error, outcomes.squared), rows, lowest=-np.inf),
    }
    return found | ({"r2": _determination(outcomes)} if outcomes.variation else {})


def _determination(outcomes: ErrorOutcomes) -> Metric:
    """R²; the interval is by the delta method, with the kurtosis of the errors and otherwise normal labels.

    For a calibrated model with normal errors it is that of Olkin and Finn, Psychological Bulletin 118 (1995), 155-164.
    """
    unexplained = outcomes.squared / outcomes.variation
    if not outcomes.squared:
        return Metric(1.0, 1.0, 1.0)
    # In this order no tiny error underflows to a division by 0.
    kurtosis = outcomes.rows * (outcomes.fourth / outcomes.squared / outcomes.squared)
    common = (
        outcomes.joint / outcomes.squared * outcomes.joint / outcomes.variation
    )  # squared correlation with the label
    error = unexplained * np.sqrt(max(kurtosis + 1 - 4 * common, 0.0) / outcomes.rows)
    return around(1 - unexplained, float(error), lowest=-np.inf)
