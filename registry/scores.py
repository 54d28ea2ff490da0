"""What every runtime is: something that scores rows. The runtimes themselves stand in modules of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from registry.model_input import to_model_input
from registry.signature import Column, Frame, Signature

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class Scores:
    """`prediction`: labels (n,), or float64 (n,) for regression. `probabilities`: float64 (n, classes) or None."""

    prediction: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None


def merged(some: Scores, places: npt.NDArray[Any], others: Scores, other_places: npt.NDArray[Any]) -> Scores:
    """The scores of rows that were scored apart, in the order of their places."""
    order = np.argsort(np.concatenate([places, other_places]))
    prediction = np.concatenate([some.prediction, others.prediction])[order]
    if some.probabilities is None or others.probabilities is None:
        return Scores(prediction, None)
    return Scores(prediction, np.concatenate([some.probabilities, others.probabilities])[order])


#: How far an answer in single precision may be off, whatever the cause.
SINGLE_TOLERANCE = 1e-5


class Runtime(ABC):
    """One loaded model, and what is known of it before it has scored anything."""

    #: For messages.
    name: str
    #: (k,) in the order of the probabilities; None for regression, and when only answers can tell.
    classes: npt.NDArray[Any] | None = None
    #: Whether it has an output for probabilities.
    has_probability: bool = False
    #: What the artefact says it was fitted or exported with: version by library.
    fitted_with: Mapping[str, str]
    #: How far its answer may be off where another library or processor computes it; relative for regression.
    tolerance: float = 1e-9
    #: How far its answer may be off when other rows are in the call: the rounding of BLAS, no more.
    batch_tolerance: Mapping[Kind, float] = MappingProxyType({"classification": 1e-12, "regression": 1e-9})

    def model_input(self, features: Any, signature: Signature) -> Any:
        """What `predict` takes, from the features (n rows) of a parsed chunk."""
        return to_model_input(features, signature)

    @abstractmethod
    def predict(self, model_input: Any, *, class_from: Literal["probabilities", "predict"] = "predict") -> Scores:
        """Score n rows; whatever the model raises goes through.

        With `class_from="probabilities"` (see `Output.class_from`) a model that could need a second call for the class
        makes it only for rows whose two most probable classes tie.
        """

    @abstractmethod
    def kind(self) -> Kind | None:
        """What it predicts; None when it is neither a classifier nor a regressor."""

    @abstractmethod
    def columns(self, header: Sequence[str]) -> list[str] | None:
        """The columns that it takes, in its order, as the header of the reference spells them; None if it does not say."""

    @abstractmethod
    def frames(self, columns: Sequence[Column]) -> list[Frame]:
        """The forms in which it may take such columns, the most likely one first."""

    @abstractmethod
    def libraries(self) -> dict[str, str]:
        """The versions of the libraries that compute its answers."""

    def takes_class_from_probabilities(self) -> bool:
        """Whether the class may be read off the probabilities, ties aside."""
        return False
