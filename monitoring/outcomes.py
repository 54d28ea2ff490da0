"""Outcomes: what became of labelled predictions, as counters that merge by addition.

The outcomes of a window of one version are stored as JSON; those of a day are the merged ones of its hours, and
`monitoring.accuracy` computes every metric from them without a look at the rows. There are two shapes:
`ClassOutcomes` for binary and multiclass classification, with or without probabilities, and `ErrorOutcomes` for
regression. Only numpy is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.label_texts import UNLABELLED, Places, Texts, blank, number
from monitoring.score_bins import SCORE_BINS, SCORE_EDGES, score_bin
from registry.signature import Output

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

#: Labels of a regression beyond this are no measurements, and the fourth power of their error may overflow.
_LARGEST_NUMBER = 1e60
_DIFFERENT = "outcomes of a classification and of a regression do not merge"


@dataclass(frozen=True, eq=False)
class ClassOutcomes:
    """Labelled predictions of a classifier with k classes.

    Attributes:
        classes: text of the classes, in the order of the model.
        positive: index of the positive class of a binary classifier; None with more classes.
        confusion: (k + 1, k) counts by label (row) and predicted class; the last row is labels of no known class.
        log_loss, squares: (2,) sum and sum of squares over rows of -ln p(label), and of (p(positive) - label)².
        scored: rows that have probabilities and a label of a known class: those behind all but `confusion`.
        counts, score_sums: (2, 200) rows, and sums of their scores, by label (0 negative, 1 positive) and score bin;
            (2, 0) unless the classifier is binary and has probabilities.
    """

    classes: tuple[str, ...]
    positive: int | None
    confusion: Counts
    scored: int
    log_loss: Floats
    squares: Floats
    counts: Counts
    score_sums: Floats

    @property
    def labelled(self) -> int:
        """Predictions with a label, those of unknown classes too."""
        return int(self.confusion.sum())

    @property
    def unknown(self) -> int:
        """Labels of classes that the model does not know; each counts as a wrong prediction."""
        return int(self.confusion[-1].sum())

    def to_json(self) -> dict[str, Any]:
        return _to_json("classification", self)

    def _plus(self, other: Outcomes) -> ClassOutcomes:
        if not isinstance(other, ClassOutcomes):
            raise TypeError(_DIFFERENT)
        if (self.classes, self.positive) != (other.classes, other.positive):
            raise ValueError(f"outcomes of the classes {self.classes} and {other.classes} do not merge")
        summed = ("confusion", "scored", "log_loss", "squares", "counts", "score_sums")
        sums = {name: getattr(self, name) + getattr(other, name) for name in summed}
        return ClassOutcomes(self.classes, self.positive, **sums)


@dataclass(frozen=True, eq=False)
class ErrorOutcomes:
    """Labelled predictions of a regression; the error e is prediction - label.

    Attributes:
        rows: those whose label is a number; `unknown` those whose label is none, which count nowhere else.
        error, absolute, squared, fourth: sums of e, |e|, e² and e⁴ (for the interval of the second moment).
        mean: of the labels y; `variation` is the sum of (y - mean)², `joint` of (e - mean of e)(y - mean). They are
            centred, because Σy² - (Σy)²/n loses the digits of a label that is large beside its spread.
    """

    rows: int
    unknown: int
    error: float
    absolute: float
    squared: float
    fourth: float
    mean: float
    variation: float
    joint: float

    @property
    def labelled(self) -> int:
        """Predictions with a label, those that are no numbers too."""
        return self.rows + self.unknown

    def to_json(self) -> dict[str, Any]:
        return _to_json("regression", self)

    def _plus(self, other: Outcomes) -> ErrorOutcomes:
        """Pairwise update of the centred sums: Chan, Golub, LeVeque, The American Statistician 37 (1983), 242-247."""
        if not isinstance(other, ErrorOutcomes):
            raise TypeError(_DIFFERENT)
        summed = ("rows", "unknown", "error", "absolute", "squared", "fourth")
        sums = {name: getattr(self, name) + getattr(other, name) for name in summed}
        if not self.rows or not other.rows:
            full = self if self.rows else other
            return ErrorOutcomes(**sums, mean=full.mean, variation=full.variation, joint=full.joint)
        step = other.mean - self.mean
        error_step = other.error / other.rows - self.error / self.rows
        share = other.rows / sums["rows"]
        return ErrorOutcomes(
            **sums,
            mean=self.mean + step * share,
            variation=self.variation + other.variation + step**2 * self.rows * share,
            joint=self.joint + other.joint + step * error_step * self.rows * share,
        )


Outcomes = ClassOutcomes | ErrorOutcomes


def outcomes_of(
    output: Output,
    predictions: Texts,
    probability: Floats | None,
    probabilities: Floats | None,
    labels: Texts,
) -> Outcomes:
    """Count n predictions of one version against their labels.

    Args:
        predictions: (n,) as they are stored.
        probability: (n,) of the positive class of a binary classifier, or of the label where there are more classes (NaN
            where it is not known); None if the model gives none.
        probabilities: (n, k) in the order of the classes, for more than two classes; None if the model gives none.
        labels: (n,) text; None or blank has no label and counts nowhere. Classes that are numbers match by value, so
            `1`, `1.0` and `true` are the same; true and false are read in any case. White space around a label is dropped.

    Raises:
        ValueError: the arrays differ in length, or a prediction is not a class of the model (or not a number).
    """
    given = [array for array in (predictions, probability, probabilities, labels) if array is not None]
    if len({len(array) for array in given}) != 1:
        raise ValueError(f"predictions, probabilities and labels differ in length: {[len(array) for array in given]}")
    if output.kind == "regression":
        return _errors(predictions, labels)
    return _classified(output, predictions, probability, probabilities, labels)


def merge(outcomes: Iterable[Outcomes]) -> Outcomes:
    """The outcomes of all rows together; of one version, and at least one.

    Raises:
        ValueError: they are of different classes.
        TypeError: they are of a classification and of a regression, or there are none.
    """
    return functools.reduce(lambda merged, one: merged._plus(one), outcomes)


def from_json(stored: dict[str, Any]) -> Outcomes:
    """The outcomes that `to_json` wrote."""
    values = {name: value for name, value in stored.items() if name != "kind"}
    if stored["kind"] == "regression":
        return ErrorOutcomes(**values)
    width = SCORE_BINS if values["counts"][0] else 0
    return ClassOutcomes(
        classes=tuple(values["classes"]),
        positive=values["positive"],
        confusion=np.array(values["confusion"], np.int64),
        scored=values["scored"],
        log_loss=np.array(values["log_loss"], np.float64),
        squares=np.array(values["squares"], np.float64),
        counts=np.array(values["counts"], np.int64).reshape(2, width),
        score_sums=np.array(values["score_sums"], np.float64).reshape(2, width),
    )


def _classified(
    output: Output, predictions: Texts, probability: Floats | None, probabilities: Floats | None, labels: Texts
) -> ClassOutcomes:
    assert output.classes is not None, "only an examined version predicts"
    places, k = Places(output.classes), len(output.classes)
    positive = None if output.positive is None else places[str(output.positive)]
    label, guess = places.of(labels), places.of(predictions)
    if ((guess < 0) | (guess == k)).any():
        raise ValueError(f"a prediction is not one of the classes {', '.join(map(str, output.classes))}")
    labelled, known = label != UNLABELLED, (label != UNLABELLED) & (label != k)
    confusion = np.bincount(label[labelled] * k + guess[labelled], minlength=(k + 1) * k).reshape(k + 1, k)
    truth = label[known]
    if positive is not None and probability is None and probabilities is not None:
        probability = probabilities[:, positive]
    if positive is not None and probability is not None:
        sums = _binary_sums(np.asarray(probability, np.float64)[known], (truth == positive).astype(np.int64))
    elif probabilities is not None:
        sums = _multiclass_sums(np.asarray(probabilities, np.float64)[known, truth])
    elif probability is not None:
        of_label = np.asarray(probability, np.float64)[known]
        sums = _multiclass_sums(of_label[~np.isnan(of_label)])
    else:
        sums = _multiclass_sums(np.empty(0))
    return ClassOutcomes(tuple(map(str, output.classes)), positive, confusion, *sums)


#: The fields of `ClassOutcomes` from `scored` on.
_Sums = tuple[int, Floats, Floats, Counts, Floats]


def _binary_sums(scores: Floats, truth: Counts) -> _Sums:
    losses, squares = _log_losses(np.where(truth == 1, scores, 1 - scores)), (scores - truth) ** 2
    place = truth * SCORE_BINS + score_bin(scores, SCORE_EDGES)
    counts, sums = np.bincount(place, minlength=2 * SCORE_BINS), np.bincount(place, scores, 2 * SCORE_BINS)
    # An empty bincount with weights has integers.
    by_score = counts.reshape(2, -1), sums.astype(np.float64).reshape(2, -1)
    return len(truth), _moments(losses), _moments(squares), *by_score


def _multiclass_sums(probability_of_label: Floats) -> _Sums:
    losses = _moments(_log_losses(probability_of_label))
    return len(probability_of_label), losses, np.zeros(2), np.zeros((2, 0), np.int64), np.zeros((2, 0))


def _log_losses(probability_of_label: Floats) -> Floats:
    """-ln p, with p kept off 0 and 1 by the machine's precision as in scikit-learn."""
    precision = np.finfo(np.float64).eps
    return -np.log(np.clip(probability_of_label, precision, 1 - precision))


def _moments(values: Floats) -> Floats:
    return np.array([values.sum(), (values**2).sum()])


def _errors(predictions: Texts, labels: Texts) -> ErrorOutcomes:
    label = np.array([np.nan if label is None else number(label) for label in labels], np.float64)
    guess = np.array([number(text or "") for text in predictions], np.float64)
    if not np.isfinite(guess).all():
        raise ValueError("a prediction of the regression is not a finite number")
    known = np.abs(label) <= _LARGEST_NUMBER  # which NaN is not
    unknown = sum(not blank(text) for text in labels) - int(known.sum())
    y, e = label[known], np.clip(guess[known], -_LARGEST_NUMBER, _LARGEST_NUMBER) - label[known]
    mean = float(y.mean()) if len(y) else 0.0
    away = y - mean
    error, absolute, squared, fourth = (float(values.sum()) for values in (e, np.abs(e), e**2, e**4))
    variation, joint = float((away**2).sum()), float((e * away).sum())
    return ErrorOutcomes(len(y), unknown, error, absolute, squared, fourth, mean, variation, joint)


def _to_json(kind: str, outcomes: ClassOutcomes | ErrorOutcomes) -> dict[str, Any]:
    values = {field.name: getattr(outcomes, field.name) for field in fields(outcomes)}
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
    return {"kind": kind} | plain | ({"classes": list(values["classes"])} if "classes" in values else {})
