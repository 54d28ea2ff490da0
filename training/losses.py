"""The loss of each row: what candidates are chosen by, and what a champion and its challenger are compared on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def losses(
    truth: npt.NDArray[Any],
    predicted: npt.NDArray[Any] | None,
    probabilities: Floats | None,
    classes: npt.NDArray[Any] | None,
) -> Floats:
    """(n,) log losses from probabilities (n, k) of the classes; without them 0 or 1; squared errors where there are no classes.

    A label that is none of the k classes has the probability 0. Probabilities are kept off 0 by the machine's precision, as
    scikit-learn does.
    """
    if probabilities is not None and classes is not None:
        place = {label: position for position, label in enumerate(classes.tolist())}
        at = np.array([place.get(label, -1) for label in truth.tolist()])
        chance = np.where(at < 0, 0.0, probabilities[np.arange(len(at)), np.maximum(at, 0)])
        precision = np.finfo(np.float64).eps
        found: Floats = -np.log(np.clip(chance, precision, 1 - precision))
        return found
    assert predicted is not None, "a model without probabilities has predictions"
    if classes is None:
        return np.asarray((predicted.astype(np.float64) - truth) ** 2, np.float64)
    return np.array([one != other for one, other in zip(predicted.tolist(), truth.tolist(), strict=True)], np.float64)


def probabilities_of(model: Any, frame: Any, classes: npt.NDArray[Any]) -> Floats | None:
    """(n, k) probabilities in the order of `classes`, 0 for those that the model does not know; None without any."""
    if not callable(getattr(model, "predict_proba", None)):
        return None
    return in_order(np.asarray(model.predict_proba(frame), np.float64), model.classes_, classes)


def in_order(probabilities: Floats, known: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Floats:
    """Columns for `known` classes as columns for all `classes`."""
    if np.array_equal(known, classes):
        return probabilities
    place = {label: position for position, label in enumerate(classes.tolist())}
    found = np.zeros((len(probabilities), len(classes)))
    for column, label in enumerate(np.asarray(known).tolist()):
        if label in place:
            found[:, place[label]] = probabilities[:, column]
    return found
