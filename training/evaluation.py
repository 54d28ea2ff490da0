"""How well a model does on rows that it was not fitted on: the metrics of the accuracy audit, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.accuracy import metrics
from monitoring.intervals import Metric
from monitoring.outcomes import outcomes_of
from monitoring.reference import text_of
from registry.runtime import Scores, runtime_of
from training.calibration import calibration_error
from training.losses import in_order
from training.target import Target


@dataclass(frozen=True)
class Evaluation:
    """What a model answered for n rows, and what that is worth.

    `probabilities` (n, k) are in the order of the classes of the target; None without.
    """

    prediction: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None
    metrics: dict[str, Metric]

    def to_json(self) -> dict[str, Any]:
        return {name: metric.to_json() for name, metric in self.metrics.items()}


def evaluated(model: Any, frame: Any, labels: Any, target: Target) -> Evaluation:
    """Score a frame (n rows) by an estimator as a worker would, and compare with its n labels (texts)."""
    return of_scores(runtime_of(model).predict(frame), getattr(model, "classes_", None), labels, target)


def of_scores(scores: Scores, known: npt.NDArray[Any] | None, labels: Any, target: Target) -> Evaluation:
    """Of a model that knows the classes `known`, which may be others than those of the target."""
    texts = [text_of(value) for value in scores.prediction.tolist()]
    if target.classes is None:
        found = metrics(outcomes_of(target.output(has_probability=False), texts, None, None, labels.to_pylist()))
        return Evaluation(scores.prediction, None, found)
    classes = np.array(target.classes)
    probabilities = None
    if scores.probabilities is not None and known is not None:
        probabilities = in_order(scores.probabilities, known, classes)
    output = target.output(has_probability=probabilities is not None)
    found = metrics(outcomes_of(output, texts, None, probabilities, labels.to_pylist()))
    if probabilities is not None and "ece" not in found:
        found["ece"] = calibration_error(probabilities, target.values(labels), classes)
    return Evaluation(scores.prediction, probabilities, found)
