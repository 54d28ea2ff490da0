"""How far the answers of a form of a model are from those of the model itself, where they need not be the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Answers(Protocol):
    """`Scores`, or what is scored of a chunk."""

    @property
    def prediction(self) -> npt.NDArray[Any]: ...
    @property
    def probabilities(self) -> npt.NDArray[np.float64] | None: ...


@dataclass(frozen=True)
class Deviation:
    """The largest difference of a probability, or of the number of a regression; and how many rows have another class."""

    max_difference: float
    flips: int


def deviation(found: Answers, expected: Answers) -> Deviation:
    """Of n rows each; infinitely large where one answer is finite and the other is not."""
    if expected.probabilities is None and expected.prediction.dtype.kind == "f" and found.prediction.dtype.kind == "f":
        return Deviation(_largest(found.prediction, expected.prediction), 0)
    pairs = zip(found.prediction.tolist(), expected.prediction.tolist(), strict=True)
    flips = sum(one != other for one, other in pairs)
    if found.probabilities is None or expected.probabilities is None:
        return Deviation(0.0 if found.probabilities is expected.probabilities else np.inf, flips)
    return Deviation(_largest(found.probabilities, expected.probabilities), flips)


def permitted(within: float, expected: Answers, *, regression: bool) -> float:
    """The difference that a tolerance stands for: itself for a probability, in standard deviations for a regression."""
    return within * float(np.std(expected.prediction)) if regression else within


def _largest(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    if found.shape != expected.shape:
        return float(np.inf)
    with np.errstate(invalid="ignore"):
        off = np.abs(found - expected)
    return float(np.nan_to_num(off, nan=np.inf).max(initial=0.0))
