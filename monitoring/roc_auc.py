"""The area under the ROC curve: from score bins with its standard error, and exactly from the rows. Only numpy is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def exact_roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """ROC AUC from the rows: (n,) labels, true for positive, and their (n,) scores; by ranks (Mann, Whitney 1947).

    Raises:
        ValueError: there is only one class.
    """
    positive, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        raise ValueError("ROC AUC needs labels of both classes")
    _, place, ties = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def binned_roc_auc(counts: npt.NDArray[Any], within: npt.NDArray[np.float64]) -> tuple[float, float]:
    """ROC AUC and its standard error from score bins.

    The error is that of DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), 837-845, with one component per bin.

    Args:
        counts: (2, bins) negatives and positives, some of each, by ascending score.
        within: (bins,) the AUC among the rows of each bin; 1/2 for ties.
    """
    negative, positive = counts
    negatives, positives = negative.sum(), positive.sum()
    beaten = (np.cumsum(negative) - negative + within * negative) / negatives  # share of negatives below a positive
    beating = (positives - np.cumsum(positive) + within * positive) / positives  # share of positives above a negative
    auc = float(positive @ beaten / positives)
    variance = positive @ (beaten - auc) ** 2 / positives / max(positives - 1, 1)
    variance += negative @ (beating - auc) ** 2 / negatives / max(negatives - 1, 1)
    return auc, float(np.sqrt(variance))
