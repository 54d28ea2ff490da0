"""What a model answers, found out from its answers to the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from errors import InvalidPackage
from registry.scores import Runtime, Scores
from registry.signature import Label, Output

ClassType = Literal["integer", "number", "text", "boolean"]

_CLASS_TYPES: dict[type, ClassType] = {bool: "boolean", int: "integer", float: "number", str: "text"}
# A label of that type from the text of the target; pandas writes integers beside nulls as 1.0.
_READ: dict[type, Callable[[str], Label]] = {
    bool: lambda text: {"true": True, "false": False, "1": True, "0": False}[text.lower()],
    int: lambda text: int(text.removesuffix(".0")),
    float: float,
    str: str,
}
# How far the probabilities of a row may be from adding up to 1: those of single precision are.
_SUM_TOLERANCE = 1e-3


def output_of(runtime: Runtime, scores: Scores, targets: Sequence[str] | None) -> Output:
    """The output of a model, all but `class_from`.

    Args:
        scores: of the reference (n rows).
        targets: the text of the reference's target, if it has one; tells the classes of a model that does not.

    Raises:
        InvalidPackage: it is neither classifier nor regressor, has more than one output, or its classes are unknown.
    """
    kind = runtime.kind()
    if kind is None:
        raise InvalidPackage(f"{runtime.name} is neither a classifier nor a regressor; register one that is")
    if scores.prediction.ndim != 1:
        raise InvalidPackage("the model has more than one output; register a model for each of them")
    if kind == "regression":
        return Output(kind=kind)
    told = runtime.classes
    classes = _classes_seen(scores, targets) if told is None else told.tolist()
    probable = scores.probabilities is not None and _are_distributions(scores.probabilities)
    if probable and told is None:
        _check_order(classes, scores)
    return Output(
        kind=kind,
        classes=classes,
        class_type=_class_type(classes),
        positive=classes[1] if len(classes) == 2 else None,
        has_probability=probable,
    )


def _classes_seen(scores: Scores, targets: Sequence[str] | None) -> list[Label]:
    """The labels of the answers and of the target, sorted, which is scikit-learn's order."""
    seen = set(scores.prediction.tolist())
    kind = type(next(iter(seen)))
    for text in {text.strip() for text in targets or ()} - {""}:
        with suppress(ValueError, KeyError):  # what is no such label is told when the metrics are computed
            seen.add(_READ[kind](text))
    return sorted(seen)


def _are_distributions(probabilities: npt.NDArray[np.float64]) -> bool:
    """Whether each row is one: the decision values of some classifiers come in the same place."""
    finite = probabilities[np.isfinite(probabilities).all(axis=1)]
    within = (finite >= -_SUM_TOLERANCE).all() and (finite <= 1 + _SUM_TOLERANCE).all()
    return bool(within and (np.abs(finite.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())


def _check_order(classes: Sequence[Label], scores: Scores) -> None:
    """Refuse when it is not plain which probability belongs to which class."""
    assert scores.probabilities is not None
    remedy = "write the classes into the file's metadata: `classes`, a JSON list in the order of the probabilities"
    width = scores.probabilities.shape[1]
    if len(classes) != width:
        raise InvalidPackage(
            f"the model gives {width} probabilities, but the reference shows {len(classes)} classes "
            f"({', '.join(map(str, classes))}); name its target column and let it hold every class, or {remedy}"
        )
    likely = np.array(classes, dtype=object).take(np.argmax(scores.probabilities, axis=1))
    if np.mean([one == other for one, other in zip(likely, scores.prediction.tolist(), strict=True)]) <= 1 / 2:
        raise InvalidPackage(f"the model's labels contradict the order of its probabilities; {remedy}")


def _class_type(classes: Sequence[Any]) -> ClassType:
    found = {type(label) for label in classes}
    if len(found) != 1 or not found <= _CLASS_TYPES.keys():
        names = ", ".join(sorted(kind.__name__ for kind in found))
        raise InvalidPackage(f"the classes are of types {names}; expected one of int, float, str or bool for all")
    return _CLASS_TYPES[found.pop()]
