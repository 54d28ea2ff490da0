"""Models of scikit-learn, or with its interface: an estimator, a Pipeline, or the guide's dict."""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import IO, Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from errors import ArtefactRefused
from registry.estimator import final_estimator, kind_of, reads_class_off_probabilities
from registry.scores import Kind, Runtime, Scores
from registry.signature import Column, Frame

_LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas")
#: Below this gap between the two most probable classes their order may be one of rounding; `predict` decides then.
TIE = 1e-9
# A skops file is a zip: what it unpacks to is bounded before it is unpacked.
_MAX_UNPACKED_BYTES = 1 << 30
_MAX_UNPACKED_RATIO = 20


class SklearnRuntime(Runtime):
    """One loaded model: an estimator or Pipeline, or the guide's dict `{model, preprocessor, feature_names}`."""

    def __init__(self, model: Any, preprocessor: Any = None, feature_names: list[str] | None = None) -> None:
        self.model = model
        self.preprocessor = preprocessor
        self.feature_names = feature_names
        self.name = f"a {type(model).__name__}"
        self.classes = _classes(model)
        self.has_probability = callable(getattr(model, "predict_proba", None))
        self.fitted_with = {}

    def predict(self, model_input: Any, *, class_from: Literal["probabilities", "predict"] = "predict") -> Scores:
        # Threads would add up the trees of a forest in the order in which they end, which rounds differently each time.
        with warnings.catch_warnings(), joblib.parallel_config(backend="sequential"):
            # A model's warnings (unknown categories, names it was not fitted with) would repeat for every chunk.
            warnings.simplefilter("ignore")
            transformed = self._transformed(model_input)
            if not self.has_probability:
                return Scores(_flat(self.model.predict(transformed)), None)
            probabilities = np.asarray(self.model.predict_proba(transformed), dtype=np.float64)
            if class_from == "predict" or self.classes is None:
                return Scores(_flat(self.model.predict(transformed)), probabilities)
            return Scores(self._most_probable(transformed, probabilities), probabilities)

    def kind(self) -> Kind | None:
        return kind_of(self.model)

    def columns(self, header: Sequence[str]) -> list[str] | None:
        """The names it was fitted on (`feature_names_in_` of it, or of the preprocessor), else the dict's."""
        del header
        fitted = getattr(self._first, "feature_names_in_", None)
        names = self.feature_names if fitted is None else fitted
        return None if names is None else [str(name) for name in names]

    def frames(self, columns: Sequence[Column]) -> list[Frame]:
        if any(column.type in ("category", "text", "timestamp") for column in columns):
            return ["object", "category"]
        named = getattr(self._first, "feature_names_in_", None) is not None
        return ["object", "array"] if named else ["array", "object"]

    def libraries(self) -> dict[str, str]:
        """Those of scikit-learn, and the one that the estimator comes from."""
        found = {name: version(name) for name in _LIBRARIES}
        home = sys.modules.get(type(final_estimator(self.model)).__module__.partition(".")[0])
        if home is not None and home is not sklearn and hasattr(home, "__version__"):
            found[home.__name__] = str(home.__version__)
        return found

    def takes_class_from_probabilities(self) -> bool:
        """Whether `predict` of this kind of estimator is the most probable class, ties aside."""
        return self.has_probability and reads_class_off_probabilities(final_estimator(self.model))

    @property
    def _first(self) -> Any:
        """What sees the columns."""
        return self.model if self.preprocessor is None else self.preprocessor

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

        def decide(ties: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
            return _flat(
                self.model.predict(transformed.iloc[ties] if hasattr(transformed, "iloc") else transformed[ties])
            )

        return most_probable(self.classes, probabilities, decide)


def most_probable(
    classes: npt.NDArray[Any],
    probabilities: npt.NDArray[np.float64],
    decide: Callable[[npt.NDArray[np.intp]], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """The most probable class of each row; of the rows that tie, `decide` says it."""
    prediction: npt.NDArray[Any] = classes.take(np.argmax(probabilities, axis=1))
    if probabilities.shape[1] > 1 and len(probabilities):
        top = np.partition(probabilities, -2, axis=1)[:, -2:]
        ties = np.flatnonzero(top[:, 1] - top[:, 0] < TIE)
        if ties.size:
            prediction[ties] = decide(ties)
    return prediction


def unpickled(file: IO[bytes], *, skops_format: bool, mismatch_allowed: bool) -> SklearnRuntime:
    """The model of a joblib, pickle or skops file whose bytes are vouched for.

    Raises:
        ArtefactRefused: it was fitted with another scikit-learn and that is not allowed, or it holds types that skops
            does not trust, or no model.
    """
    with _versions_found() as others:
        content = _from_skops(file.read()) if skops_format else joblib.load(file)
    if others and not mismatch_allowed:
        estimator, other = others[0]
        raise ArtefactRefused(
            f"the artefact's {estimator} was fitted with scikit-learn {other}, this process has "
            f"{sklearn.__version__}, which may score differently; fit the model again, or register it with "
            "--allow-version-mismatch and compare its metrics"
        )
    runtime = runtime_of(content)
    fitted = ", ".join(sorted({other for _, other in others}))
    if fitted or type(final_estimator(runtime.model)).__module__.startswith("sklearn."):
        runtime.fitted_with = {"scikit-learn": fitted or sklearn.__version__}
    return runtime


def runtime_of(content: Any) -> SklearnRuntime:
    """The runtime of what an artefact held.

    Raises:
        ArtefactRefused: it is neither an object with `predict` nor a dict with such a `model`.
    """
    if isinstance(content, dict) and "model" in content:
        names = content.get("feature_names")
        runtime = SklearnRuntime(content["model"], content.get("preprocessor"), None if names is None else list(names))
    else:
        runtime = SklearnRuntime(content)
    if not callable(getattr(runtime.model, "predict", None)):
        raise ArtefactRefused(
            f"the artefact holds a {type(content).__name__} without `predict`; expected a fitted scikit-learn "
            "estimator or Pipeline, or a dict with `model`, `preprocessor` and `feature_names`"
        )
    return runtime


@contextmanager
def _versions_found() -> Iterator[list[tuple[str, str]]]:
    """The estimators that were fitted with another scikit-learn, and with which; scikit-learn itself only warns."""
    found: list[tuple[str, str]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for each in caught:
        if isinstance(each.message, InconsistentVersionWarning):
            found.append((each.message.estimator_name, each.message.original_sklearn_version))


def _from_skops(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(_MAX_UNPACKED_BYTES, _MAX_UNPACKED_RATIO * len(data)):
        raise ArtefactRefused(
            f"the artefact unpacks to {unpacked:,} bytes, far more than its {len(data):,}; "
            "save it with skops.io.dump, without compression"
        )
    # It imports all of scikit-learn, which costs each process that starts more than all else that it imports.
    import skops.io  # noqa: PLC0415 - as said

    untrusted = skops.io.get_untrusted_types(data=data)
    if untrusted:
        raise ArtefactRefused(
            f"the artefact holds types that skops does not trust: {', '.join(sorted(untrusted))}; "
            "save the model with joblib and register it with --trust, if you trust whoever made it"
        )
    return skops.io.loads(data, trusted=[])


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
