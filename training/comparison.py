"""Champion against challenger on the same rows: is the challenger better, or was it chance?

The loss of each row is taken of both (`training.losses`: log loss, squared error, or being wrong), and the mean of the
paired differences with a 95 % percentile interval from 1,000 bootstrap draws of rows (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapters 13 and 16). Pairing takes out what makes a row hard for any model. The
challenger is better when the whole interval is above 0, which chance alone does in 2.5 % of comparisons.

Of classes also McNemar's test is told: of the rows that exactly one of the two has right, is one the winner more often than
a coin would be? It is the exact binomial one (McNemar, Psychometrika 12, 1947, 153-157; Dietterich, Neural Computation 10,
1998, 1895-1923, on why it suits this). A challenger that is significantly less accurate is not better, whatever its loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from monitoring.intervals import Metric

Verdict = Literal["better", "same", "worse"]

DRAWS = 1_000
SIGNIFICANT = 0.05
_SEED = 20_130_101
#: Indices that are held at once: bounds the memory of the bootstrap.
_INDICES = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """`difference` is the champion's mean loss minus the challenger's: above 0 the challenger is better."""

    rows: int
    loss: str
    champion: float
    challenger: float
    difference: Metric
    mcnemar: dict[str, Any] | None
    verdict: Verdict
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "difference": self.difference.to_json()}


def compared(
    champion: npt.NDArray[np.float64],
    challenger: npt.NDArray[np.float64],
    *,
    loss: str,
    right: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None = None,
    draws: int = DRAWS,
    seed: int = _SEED,
) -> Comparison:
    """Compare by the losses (n,) of the same n rows; `right` says of classes whether each model had a row right."""
    differences = champion - challenger
    difference = _bootstrapped(differences, draws, seed)
    test = None if right is None else mcnemar(*right)
    verdict, reason = _judged(difference, test, loss.replace("_", " "))
    return Comparison(
        len(differences), loss, float(champion.mean()), float(challenger.mean()), difference, test, verdict, reason
    )


def _judged(difference: Metric, test: dict[str, Any] | None, loss: str) -> tuple[Verdict, str]:
    ends = f"{difference.value:.4g}, between {difference.low:.4g} and {difference.high:.4g}"
    if test is not None and test["p_value"] < SIGNIFICANT and test["only_champion"] > test["only_challenger"]:
        rows = f"{test['only_champion']:,} rows only the champion has right, {test['only_challenger']:,} only the challenger"
        return (
            "worse",
            f"it is significantly less accurate ({rows}; p = {test['p_value']:.2g}); its {loss} is lower by {ends}",
        )
    if difference.low > 0:
        return "better", f"its {loss} is lower by {ends}"
    if difference.high < 0:
        return "worse", f"its {loss} is not lower: by {ends}"
    return "same", f"that its {loss} is lower by {ends}, may be chance"


def mcnemar(champion: npt.NDArray[np.bool_], challenger: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """How many rows only one of the two had right, and how likely that is for equals (two-sided, exact)."""
    only_champion = int((champion & ~challenger).sum())
    only_challenger = int((challenger & ~champion).sum())
    apart = only_champion + only_challenger
    p_value = float(binomtest(only_challenger, apart, 0.5).pvalue) if apart else 1.0
    return {"only_champion": only_champion, "only_challenger": only_challenger, "p_value": p_value}


def _bootstrapped(differences: npt.NDArray[np.float64], draws: int, seed: int) -> Metric:
    random, rows = np.random.default_rng(seed), len(differences)
    at_once = max(1, _INDICES // rows)
    means = np.concatenate(
        [
            differences[random.integers(0, rows, (min(at_once, draws - done), rows))].mean(axis=1)
            for done in range(0, draws, at_once)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Metric(float(differences.mean()), float(low), float(high))
