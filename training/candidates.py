"""Our own recipes: candidates are cross-validated, the best one is fitted on all rows, and its probabilities are checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit
from threadpoolctl import threadpool_limits

from errors import InvalidInput
from training.calibration import calibration_error, is_off
from training.losses import losses, probabilities_of
from training.pipelines import columns_of, gradient_boosting, linear
from training.recipe import Context, Recipe

FOLDS = 4
_ROWS_FOR_THREADS = 200_000
#: With fewer rows isotonic regression would follow their noise.
_ISOTONIC_ROWS = 2_000


@dataclass(frozen=True)
class Tried:
    """A candidate after cross-validation: its mean loss, and its answers for the rows that were ever left out."""

    name: str
    loss: float
    error: float
    seconds: float
    rows: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64] | None

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "loss": self.loss, "standard_error": self.error, "seconds": round(self.seconds, 3)}


def default(X: pd.DataFrame, y: pd.Series[Any], context: Context) -> Any:  # noqa: N803  # scikit-learn's name
    """The best of a linear model and of gradient boosting with large and with small trees."""
    return _best_of(X, y, context, ["linear", "gradient-boosting", "small-trees"])


def only(name: str) -> Recipe:
    """A recipe of one candidate."""

    def recipe(X: pd.DataFrame, y: pd.Series[Any], context: Context) -> Any:  # noqa: N803  # scikit-learn's name
        return _best_of(X, y, context, [name])

    return recipe


OURS: Mapping[str, Recipe] = {
    "default": default,
    "linear": only("linear"),
    "gradient-boosting": only("gradient-boosting"),
    "small-trees": only("small-trees"),
}


def _best_of(X: pd.DataFrame, y: pd.Series[Any], context: Context, names: list[str]) -> Any:  # noqa: N803  # as above
    columns = columns_of(context.signature, X)
    if columns.unused:
        context.notes.append(
            f"not used: {', '.join(columns.unused)} (text that hardly repeats, dates, or nearly empty); a recipe of your own can"
        )
    if not columns.used:
        raise InvalidInput(f"no column can be learned from; {context.notes[-1]}")
    build: dict[str, Callable[[], Any]] = {
        "linear": lambda: linear(columns, context.kind),
        "gradient-boosting": lambda: gradient_boosting(columns, context.kind, context.seed),
        "small-trees": lambda: gradient_boosting(
            columns, context.kind, context.seed, max_leaf_nodes=8, learning_rate=0.05
        ),
    }
    frame = X[columns.used]
    candidates = {"baseline": _baseline(context), **{name: build[name]() for name in names}}
    # Small data: more threads would wait for each other longer than they work.
    with threadpool_limits(1 if len(frame) < _ROWS_FOR_THREADS else None):
        tried = {name: cross_validated(name, model, frame, y, context) for name, model in candidates.items()}
        best = min((tried[name] for name in names), key=lambda found: found.loss)
        model = candidates[best.name]
        if context.kind == "classification":
            best, model = _calibrated(best, model, frame, y, context)
        context.notes.append(f"'{best.name}' had the lowest loss in cross-validation")
        context.progress(f"fitting {best.name}", 0, 1)
        fitted = model.fit(frame, y)
        context.progress(f"fitting {best.name}", 1, 1)
    return fitted


def _baseline(context: Context) -> Any:
    """Always the same answer: what any model must beat."""
    return DummyClassifier(strategy="prior") if context.kind == "classification" else DummyRegressor()


def _calibrated(best: Tried, model: Any, frame: pd.DataFrame, y: pd.Series[Any], context: Context) -> tuple[Tried, Any]:
    """The model itself, or with its probabilities corrected where they were off and the correction helps."""
    truth = y.to_numpy()[best.rows]
    classes = np.unique(y.to_numpy())
    found = None if best.probabilities is None else calibration_error(best.probabilities, truth, classes)
    if found is None or not is_off(found):
        return best, model
    method = "isotonic" if len(frame) >= _ISOTONIC_ROWS else "sigmoid"
    corrected = CalibratedClassifierCV(clone(model), method=method, cv=3)
    again = cross_validated(f"{best.name}, calibrated", corrected, frame, y, context)
    better = again.loss < best.loss
    context.notes.append(
        f"the probabilities of '{best.name}' were off by {found.value:.3f} on average; correcting them ({method}) "
        + ("helped" if better else "did not lower the loss, so they stay as they are")
    )
    return (again, corrected) if better else (best, model)


def cross_validated(name: str, model: Any, frame: pd.DataFrame, y: pd.Series[Any], context: Context) -> Tried:
    """Fit and judge a candidate fold by fold: log loss of a classification, squared error of a regression."""
    began, truth = time.monotonic(), y.to_numpy()
    classes = np.unique(truth) if context.kind == "classification" else None
    means: list[float] = []
    rows: list[npt.NDArray[np.int64]] = []
    answers: list[npt.NDArray[np.float64]] = []
    folds = _folds(context, frame, y)
    for number, (fit, judge) in enumerate(folds):
        context.progress(f"trying {name}", number, len(folds))
        fitted = clone(model).fit(frame.iloc[fit], y.iloc[fit])
        probabilities = None if classes is None else probabilities_of(fitted, frame.iloc[judge], classes)
        predicted = fitted.predict(frame.iloc[judge]) if probabilities is None else None
        means.append(float(losses(truth[judge], predicted, probabilities, classes).mean()))
        rows.append(judge)
        if probabilities is not None:
            answers.append(probabilities)
    context.progress(f"trying {name}", len(folds), len(folds))
    error = float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0
    tried = Tried(
        name,
        float(np.mean(means)),
        error,
        time.monotonic() - began,
        np.concatenate(rows),
        np.concatenate(answers) if answers else None,
    )
    context.candidates.append(tried.document())
    return tried


def _folds(
    context: Context, frame: pd.DataFrame, y: pd.Series[Any]
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Earlier rows judge none that came before them; without a time the folds are random, by class."""
    if context.in_time:
        found = list(TimeSeriesSplit(FOLDS).split(frame))
        if context.kind == "regression":
            return found
        varied = [(fit, judge) for fit, judge in found if y.iloc[fit].nunique() > 1]
        if varied:
            return varied
    if context.kind == "classification":
        return list(StratifiedKFold(FOLDS, shuffle=True, random_state=context.seed).split(frame, y))
    return list(KFold(FOLDS, shuffle=True, random_state=context.seed).split(frame))
