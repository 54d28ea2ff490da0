"""Whether probabilities mean what they say: of rows with a score of 0.8, eight in ten should be so."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.accuracy import metrics
from monitoring.intervals import Metric
from monitoring.outcomes import outcomes_of
from registry.signature import Output

#: The expected calibration error from which probabilities are corrected, if all of its interval is above.
TOLERABLE = 0.02
_BINARY = Output(
    kind="classification", classes=[False, True], class_type="boolean", positive=True, has_probability=True
)


def calibration_error(
    probabilities: npt.NDArray[np.float64], truth: npt.NDArray[Any], classes: npt.NDArray[Any]
) -> Metric:
    """Expected calibration error with its interval (`monitoring.accuracy`), from (n, k) probabilities of the classes.

    Of two classes it is that of the second one's probability; of more, that of the highest probability of each row, with the
    question whether that class is the label (Guo et al., ICML 2017, On Calibration of Modern Neural Networks).
    """
    if len(classes) == 2:
        scores, hits = probabilities[:, 1], truth == classes[1]
    else:
        scores, hits = probabilities.max(axis=1), classes[probabilities.argmax(axis=1)] == truth
    texts = np.where(hits, "true", "false")
    guesses = np.where(scores > 0.5, "true", "false")
    return metrics(outcomes_of(_BINARY, guesses, np.clip(scores, 0.0, 1.0), None, texts))["ece"]


def is_off(error: Metric) -> bool:
    """Whether more than chance and more than a trifle."""
    return error.low > TOLERABLE
