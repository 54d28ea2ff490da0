"""What a model is to predict: classes or numbers, told by the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from errors import InvalidInput
from monitoring.label_texts import Places, number
from registry.reference import infer_column
from registry.signature import Label, Output

Kind = Literal["classification", "regression"]

#: Whole numbers with no more different values than this are classes, unless the user says otherwise.
MOST_INTEGER_CLASSES = 20
MOST_CLASSES = 100
#: Fewer rows of a class are in no hold-out and no fold.
FEWEST_PER_CLASS = 10
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Target:
    """The column that is predicted. `classes` in their order, None for regression."""

    name: str
    kind: Kind
    classes: tuple[Label, ...] | None = None

    def values(self, labels: Any) -> npt.NDArray[Any]:
        """(n,) labels of a string array as the estimator takes them: floats, or classes of one type.

        Raises:
            InvalidInput: a label is no number, or none of the classes.
        """
        texts = labels.to_pylist()
        if self.classes is None:
            found = np.array([number(text) for text in texts], np.float64)
            if not np.isfinite(found).all():
                wrong = texts[int(np.flatnonzero(~np.isfinite(found))[0])]
                raise InvalidInput(
                    f"'{self.name}' holds '{wrong}', which is no finite number; mend or remove such rows"
                )
            return found
        places = Places(self.classes).of(texts)
        strange = (places < 0) | (places == len(self.classes))
        if strange.any():
            wrong = texts[int(np.flatnonzero(strange)[0])]
            raise InvalidInput(f"'{self.name}' holds '{wrong}', which is none of the classes {self._listed()}")
        return np.array(self.classes)[places]

    def knows(self, labels: Any) -> npt.NDArray[np.bool_]:
        """(n,) whether each label of a string array is a class, or a finite number; a blank one is neither."""
        texts = labels.to_pylist()
        if self.classes is None:
            return np.isfinite(np.array([number(text) for text in texts], np.float64))
        places = Places(self.classes).of(texts)
        return (places >= 0) & (places < len(self.classes))

    def output(self, *, has_probability: bool) -> Output:
        """As the signature of a registered version has it."""
        if self.classes is None:
            return Output(kind="regression")
        types: dict[type, Any] = {bool: "boolean", int: "integer", float: "number", str: "text"}
        return Output(
            kind="classification",
            classes=list(self.classes),
            class_type=types[type(self.classes[0])],
            positive=self.classes[1] if len(self.classes) == 2 else None,
            has_probability=has_probability,
        )

    def _listed(self) -> str:
        return ", ".join(map(str, self.classes or ()))


def target_of(name: str, labels: Any, kind: Kind | None = None) -> Target:
    """Decide by the labels (a string array, none blank) unless `kind` says it.

    Booleans, words, and whole numbers with at most 20 different values are classes; other numbers are regression.

    Raises:
        InvalidInput: there is one class only, too many, or too few rows of one; or words are to be regression.
    """
    column = infer_column(name, labels)
    different = pc.unique(labels)
    words = column.type in ("category", "text")
    if kind is None:
        few = column.type == "integer" and len(different) <= MOST_INTEGER_CLASSES
        kind = "classification" if words or few or column.type == "boolean" else "regression"
    if kind == "regression":
        if words or column.type == "boolean":
            raise InvalidInput(
                f"'{name}' holds words, such as '{different[0]}'; only numbers are predicted by regression"
            )
        return Target(name, kind)
    classes = _classes(column.type, different.to_pylist())
    target = Target(name, kind, classes)
    _check(target, labels)
    return target


def of_output(name: str, output: Output) -> Target:
    """The target of a registered version."""
    return Target(name, output.kind, None if output.classes is None else tuple(output.classes))


def _classes(kind: str, texts: list[str]) -> tuple[Label, ...]:
    if kind == "boolean":
        return tuple(sorted({_BOOLEANS[text.lower()] for text in texts}))
    if kind == "integer":
        return tuple(sorted({int(text) for text in texts}))
    if kind == "number":
        return tuple(sorted({float(text) for text in texts}))
    return tuple(sorted(texts))


def _check(target: Target, labels: Any) -> None:
    assert target.classes is not None, "only classes are counted"
    if not 2 <= len(target.classes) <= MOST_CLASSES:
        raise InvalidInput(
            f"'{target.name}' holds {len(target.classes)} different values; a classification takes 2 to {MOST_CLASSES}. "
            "Name another --target, or use --kind regression for numbers"
        )
    counts = np.bincount(Places(target.classes).of(labels.to_pylist()), minlength=len(target.classes))
    rare = [
        f"{label} ({count})"
        for label, count in zip(target.classes, counts.tolist(), strict=True)
        if count < FEWEST_PER_CLASS
    ]
    if rare:
        raise InvalidInput(
            f"too few rows of a class to learn it and to judge it: {', '.join(rare)}; give {FEWEST_PER_CLASS} of each, "
            "or leave these rows out"
        )
