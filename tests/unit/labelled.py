"""Labelled predictions to test the accuracy mathematics on: seeded, as a version would have stored them."""

from __future__ import annotations

from typing import Any

import numpy as np

from monitoring.outcomes import Outcomes, outcomes_of
from registry.signature import Output

BINARY = Output(kind="classification", classes=[0, 1], class_type="integer", positive=1, has_probability=True)
THREE = Output(kind="classification", classes=["a", "b", "c"], class_type="text", has_probability=True)
REGRESSION = Output(kind="regression")


def binary(rows: int, seed: int = 1, base: float = 0.0, spread: float = 1.5) -> tuple[Any, Any]:
    """Scores (n,) of a calibrated model, and labels (n,) of 0 and 1; `base` is the log odds of a middling row."""
    random = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-base - spread * random.normal(size=rows)))
    return scores, (random.random(rows) < scores).astype(int)


def three(rows: int, seed: int = 2) -> tuple[Any, Any]:
    """Probabilities (n, 3), and labels (n,) of 0, 1 and 2."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([1.0, 0.6, 0.3], rows)
    return probabilities, (random.random(rows)[:, None] > np.cumsum(probabilities, axis=1)).sum(axis=1)


def texts(values: Any) -> list[str]:
    return [str(value) for value in np.asarray(values).tolist()]


def of_scores(scores: Any, labels: Any, output: Output = BINARY) -> Outcomes:
    """Outcomes of a binary model with the threshold 0.5; `labels` (n,) of 0 and 1, or text."""
    assert output.classes is not None
    guess = [str(output.classes[place]) for place in (np.asarray(scores) > 0.5).astype(int)]
    given = labels if isinstance(labels, list) else [str(output.classes[place]) for place in labels]
    return outcomes_of(output, guess, np.asarray(scores), None, given)


def of_counts(hits: int, misses: int, alarms: int, passes: int) -> Outcomes:
    """Outcomes of a binary model without probabilities, from its confusion counts."""
    guess = ["1"] * hits + ["0"] * misses + ["1"] * alarms + ["0"] * passes
    labels = ["1"] * (hits + misses) + ["0"] * (alarms + passes)
    return outcomes_of(BINARY, guess, None, None, labels)
