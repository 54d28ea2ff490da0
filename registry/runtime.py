"""A fitted scikit-learn model, loaded from an artefact that the registry vouches for.

A joblib file runs code when it is loaded. So its bytes are hashed and compared with the digest first, and what is then
loaded is the very file that was hashed, not its name.
"""

from __future__ import annotations

import hashlib
import hmac
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import skops.io
from sklearn.exceptions import InconsistentVersionWarning

from errors import ArtefactRefused
from registry.estimator import final_estimator, reads_class_off_probabilities

ArtefactFormat = Literal["joblib", "skops"]

#: Below this gap between the two most probable classes their order may be one of rounding; `predict` decides then.
TIE = 1e-9


@dataclass(frozen=True)
class Scores:
    """`prediction`: labels (n,), or float64 (n,) for regression. `probabilities`: float64 (n, classes) or None."""

    prediction: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None


class Runtime:
    """One loaded model: an estimator or Pipeline, or the guide's dict `{model, preprocessor, feature_names}`."""

    def __init__(self, model: Any, preprocessor: Any = None, feature_names: list[str] | None = None) -> None:
        self.model = model
        self.preprocessor = preprocessor
        self.feature_names = feature_names
        self.classes = _classes(model)
        self.has_probability = callable(getattr(model, "predict_proba", None))

    @property
    def takes_class_from_probabilities(self) -> bool:
        """Whether `predict` of this kind of estimator is the most probable class, ties aside."""
        return self.has_probability and reads_class_off_probabilities(final_estimator(self.model))

    def predict(self, model_input: Any, *, class_from: Literal["probabilities", "predict"] = "predict") -> Scores:
        """Score n rows; whatever the model raises goes through.

        With `class_from="probabilities"` (see `Output.class_from`) the model is called once, and `predict` only for
        rows whose two most probable classes tie; else `predict` gives the class.
        """
        with warnings.catch_warnings():
            # A model's warnings (unknown categories, names it was not fitted with) would repeat for every chunk.
            warnings.simplefilter("ignore")
            transformed = self._transformed(model_input)
            if not self.has_probability:
                return Scores(_flat(self.model.predict(transformed)), None)
            probabilities = np.asarray(self.model.predict_proba(transformed), dtype=np.float64)
            if class_from == "predict" or self.classes is None:
                return Scores(_flat(self.model.predict(transformed)), probabilities)
            return Scores(self._most_probable(transformed, probabilities), probabilities)

    def _transformed(self, model_input: Any) -> Any:
        if self.preprocessor is None:
            return model_input
        transformed = self.preprocessor.transform(model_input)
        names = getattr(self.model, "feature_names_in_", None)
        if names is None or not isinstance(transformed, np.ndarray) or transformed.shape[1] != len(names):
            return transformed
        return pd.DataFrame(transformed, columns=names)  # as it was fitted: on named columns

    def _most_probable(self, transformed: Any, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        assert self.classes is not None
        prediction: npt.NDArray[Any] = self.classes.take(np.argmax(probabilities, axis=1))
        if probabilities.shape[1] > 1 and len(probabilities):
            top = np.partition(probabilities, -2, axis=1)[:, -2:]
            ties = np.flatnonzero(top[:, 1] - top[:, 0] < TIE)
            if ties.size:
                rows = transformed.iloc[ties] if hasattr(transformed, "iloc") else transformed[ties]
                prediction[ties] = _flat(self.model.predict(rows))
        return prediction


def load(path: Path, *, format: ArtefactFormat, digest: str) -> Runtime:
    """Load the model of an artefact.

    Args:
        digest: `sha256:` and 64 hexadecimal digits, as the registry has it.

    Raises:
        ArtefactRefused: the file's digest is another one (nothing was unpickled then), it was fitted with another
            scikit-learn, it holds types that skops does not trust, it cannot be loaded, or it holds no model.
    """
    with path.open("rb") as file:
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if not hmac.compare_digest(found.encode(), digest.encode()):
            raise ArtefactRefused(
                f"the artefact's digest is {found}, the registry vouches for {digest}; "
                "the file was changed or damaged: register it again, or restore it from a backup"
            )
        file.seek(0)
        with _one_scikit_learn():
            content = _from_skops(file.read()) if format == "skops" else joblib.load(file)
    return runtime_of(content)


def runtime_of(content: Any) -> Runtime:
    """The runtime of what an artefact held.

    Raises:
        ArtefactRefused: it is neither an object with `predict` nor a dict with such a `model`.
    """
    if isinstance(content, dict) and "model" in content:
        names = content.get("feature_names")
        runtime = Runtime(content["model"], content.get("preprocessor"), None if names is None else list(names))
    else:
        runtime = Runtime(content)
    if not callable(getattr(runtime.model, "predict", None)):
        raise ArtefactRefused(
            f"the artefact holds a {type(content).__name__} without `predict`; expected a fitted scikit-learn "
            "estimator or Pipeline, or a dict with `model`, `preprocessor` and `feature_names`"
        )
    return runtime


def _from_skops(data: bytes) -> Any:
    untrusted = skops.io.get_untrusted_types(data=data)
    if untrusted:
        raise ArtefactRefused(
            f"the artefact holds types that skops does not trust: {', '.join(sorted(untrusted))}; "
            "save the model with joblib and register it with --trust, if you trust whoever made it"
        )
    return skops.io.loads(data, trusted=[])


@contextmanager
def _one_scikit_learn() -> Iterator[None]:
    """Turn what goes wrong in loading into `ArtefactRefused`, scikit-learn's warning of another version too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", InconsistentVersionWarning)
            yield
    except ArtefactRefused:
        raise
    except InconsistentVersionWarning as exc:
        raise ArtefactRefused(
            f"the artefact's {exc.estimator_name} was fitted with scikit-learn {exc.original_sklearn_version}, this "
            f"process has {exc.current_sklearn_version}, which may score differently; fit and register the model again"
        ) from exc
    except Exception as exc:  # unpickling may raise anything
        raise ArtefactRefused(
            f"the artefact cannot be loaded ({type(exc).__name__}: {exc}); check that its format is as registered "
            "and that every library it needs is installed"
        ) from exc


def _classes(model: Any) -> npt.NDArray[Any] | None:
    """The classes (k,); None for a model without, or with a list of them for each of several outputs."""
    classes = getattr(model, "classes_", None)
    if classes is None or any(isinstance(one, np.ndarray) for one in classes):
        return None
    return np.asarray(classes)


def _flat(prediction: Any) -> npt.NDArray[Any]:
    """Labels (n,), floats as float64. An answer with several columns stays as it is: registering refuses it."""
    labels = np.asarray(prediction)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return labels.astype(np.float64, copy=False) if labels.dtype.kind == "f" else labels
