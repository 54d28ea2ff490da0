"""Statistics of two samples that are known by their counts: n values of a reference and m of a window, in equal bins.

Counts are integer arrays (k,). No function here warns or raises for empty bins; samples must not be empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monitoring.values import Counts, Floats

#: Quantile of the normal distribution for a two-sided interval of 95 %.
Z95 = 1.959963984540054
_TERMS = np.arange(1, 101)


def ks_distance(reference: Counts, current: Counts) -> float:
    """The largest difference of the two distribution functions (Kolmogorov-Smirnov D) over the edges of the bins."""
    return float(np.abs(_cumulated(reference) - _cumulated(current)).max())


def ks_p_value(distance: float, n: int, m: int) -> float:
    """Asymptotic two-sided p-value (Smirnov 1948) with n m / (n + m); too large, never too small, where values tie."""
    scaled = distance * math.sqrt(n * m / (n + m))
    if scaled < 0.2:  # the series converges slowly there, and its sum is 1 to twelve digits
        return 1.0
    terms = np.exp(-2.0 * (_TERMS * scaled) ** 2) * np.where(_TERMS % 2, 2.0, -2.0)
    return float(np.clip(terms.sum(), 0.0, 1.0))


def psi(reference: Counts, current: Counts) -> tuple[float, float | None]:
    """The population stability index over the bins that either sample reaches, and its p-value; None for one bin.

    Shares are smoothed as (c + 1/2) / (n + k/2). What two samples of one distribution are expected to have,
    (k - 1)(1/n + 1/m), is subtracted, down to 0 at least; without that, small windows always seem to have drifted.
    PSI / (1/n + 1/m) is about chi-squared with k - 1 degrees of freedom (Yurdakul 2018, "Statistical properties of the
    population stability index").
    """
    reached = (reference > 0) | (current > 0)
    bins = int(reached.sum())
    if bins < 2:
        return 0.0, None
    p, q = _smoothed(reference[reached]), _smoothed(current[reached])
    index = float(((q - p) * np.log(q / p)).sum())
    noise = 1.0 / float(reference.sum()) + 1.0 / float(current.sum())
    return max(index - (bins - 1) * noise, 0.0), chi_squared_tail(index / noise, bins - 1)


def chi_squared_tail(value: float, degrees: int) -> float:
    """P(X >= value) for chi-squared X (Abramowitz and Stegun, 26.4.4 and 26.4.5)."""
    half = value / 2.0
    if half <= 0.0:
        return 1.0
    powers = np.arange(degrees % 2 / 2.0, degrees / 2.0)
    logs = [power * math.log(half) - half - math.lgamma(power + 1.0) for power in powers.tolist()]
    odd = math.erfc(math.sqrt(half)) if degrees % 2 else 0.0
    return min(odd + math.fsum(map(math.exp, logs)), 1.0)


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """The Jensen-Shannon distance to base 2: from 0 for equal shares to 1 for shares that never meet."""
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2.0
    divergence = (_entropy(p, middle) + _entropy(q, middle)) / 2.0
    return math.sqrt(max(divergence, 0.0))


def wasserstein(reference: Counts, current: Counts, edges: Floats, mean_difference: float) -> float:
    """The Wasserstein distance: the area between the two distribution functions, which are linear within bins.

    Beyond the outer edges the functions are not known, but how much the means differ is. What of that the inner bins do
    not explain is the area out there if it is on one side only, and a lower bound of it otherwise.

    Args:
        edges: between the bins (k - 1), at least one.
        mean_difference: mean of `current` minus mean of `reference`.
    """
    gaps = (_cumulated(reference) - _cumulated(current))[1:-1]
    with np.errstate(over="ignore", invalid="ignore"):  # edges of 1e308: the area is infinite then
        widths = np.diff(edges) / 2.0
        inside = float((widths * (np.abs(gaps[1:]) + np.abs(gaps[:-1]))).sum())
        explained = float((widths * (gaps[1:] + gaps[:-1])).sum())
    return inside + abs(mean_difference - explained)


def quantiles(counts: Counts, points: Floats, shares: Sequence[float]) -> list[float]:
    """Quantiles, linear within bins.

    Args:
        points: the ends of the bins (k + 1), those of the open ones too.
    """
    found: list[float] = np.interp(shares, _cumulated(counts), points).tolist()
    return found


def super_bins(reference: Counts, current: Counts, number: int) -> tuple[Counts, Counts]:
    """Both samples in `number` groups of neighbouring bins of about equal mass in the reference; heavy bins stay whole."""
    cumulated = _cumulated(reference)
    middles = (cumulated[1:] + cumulated[:-1]) / 2.0
    group = np.minimum((middles * number).astype(np.int64), number - 1)
    grouped = [np.bincount(group, counts, minlength=number).astype(np.int64) for counts in (reference, current)]
    return grouped[0], grouped[1]


def wilson(count: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a share (Wilson 1927)."""
    share, weight = count / total, z * z / total
    middle = share + weight / 2.0
    reach = z * math.sqrt(share * (1.0 - share) / total + weight / (4.0 * total))
    return max((middle - reach) / (1.0 + weight), 0.0), min((middle + reach) / (1.0 + weight), 1.0)


def share_p_value(count: int, total: int, tolerated: float) -> float:
    """One-sided p-value of the score test that a share is at most `tolerated`: Wilson's lower bound, the other way round."""
    return _normal_tail((count / total - tolerated) / math.sqrt(tolerated * (1.0 - tolerated) / total))


def rate_difference(reference: tuple[int, int], current: tuple[int, int]) -> tuple[float, float, float]:
    """How much the rate of the second (count, total) is above that of the first, and its interval of 95 %.

    The interval is the one that Newcombe (1998) makes of Wilson's two (his method 10).
    """
    p, q = reference[0] / reference[1], current[0] / current[1]
    (p_low, p_high), (q_low, q_high) = wilson(*reference), wilson(*current)
    low, high = math.hypot(q - q_low, p_high - p), math.hypot(q_high - q, p - p_low)
    return q - p, q - p - low, q - p + high


def rate_p_value(reference: tuple[int, int], current: tuple[int, int]) -> float | None:
    """One-sided p-value that the second rate is no higher, of the pooled z test; None when there is nothing to test."""
    (c, n), (d, m) = reference, current
    pooled = (c + d) / (n + m)
    if pooled in (0.0, 1.0):
        return None
    return _normal_tail((d / m - c / n) / math.sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)))


def discoveries(p_values: Sequence[float | None], q: float) -> list[bool]:
    """Which are significant when at most a share `q` of those may be by chance (Benjamini and Hochberg 1995)."""
    tested = sorted(value for value in p_values if value is not None)
    passing = [value for rank, value in enumerate(tested, 1) if value <= q * rank / len(tested)]
    limit = max(passing, default=-1.0)
    return [value is not None and value <= limit for value in p_values]


def _cumulated(counts: Counts) -> Floats:
    """The distribution function (k + 1) at the ends of the bins."""
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])


def _smoothed(counts: Counts) -> Floats:
    return np.asarray((counts + 0.5) / (counts.sum() + 0.5 * len(counts)), np.float64)


def _shares(counts: Counts) -> Floats:
    return np.asarray(counts / counts.sum(), np.float64)


def _entropy(p: Floats, q: Floats) -> float:
    """The Kullback-Leibler divergence of p from q, in bits."""
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())


def _normal_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2.0)) / 2.0
