"""The bins over [0, 1] in which the scores of labelled predictions are counted. Only numpy is needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SCORE_BINS = 200
CALIBRATION_BINS = 20


def _edges() -> npt.NDArray[np.float64]:
    # Equal steps of arcsin(sqrt(p)), the scale on which proportions have one variance: the first bin is 6e-5 wide, those
    # at 1/2 are 0.008. With 2 % positives the AUC is then right to 2e-6; 200 bins of equal width are wrong by 4e-3.
    edges = np.sin(np.linspace(0, np.pi / 2, SCORE_BINS + 1)) ** 2
    # Each bin of the calibration error is to be a union of these.
    for edge in np.linspace(0, 1, CALIBRATION_BINS + 1):
        edges[np.argmin(np.abs(edges - edge))] = edge
    return edges


#: (201,) edges of the score bins; a bin holds its lower edge, the last one also 1. 0.5 and each 0.05 are edges.
SCORE_EDGES = _edges()

#: (20,) the first of the score bins that make up each bin of the calibration error, all 0.05 wide.
CALIBRATION_STARTS = np.searchsorted(SCORE_EDGES, np.linspace(0, 1, CALIBRATION_BINS + 1)[:-1])


def score_bin(scores: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(n,) the bin of each score among those between the edges (201,); what lies outside goes to the outer bins."""
    return np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 2)
