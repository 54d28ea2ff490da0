"""ONNX models in ONNX Runtime: from the columns of a signature to the model's tensors, and from its outputs to scores.

A model takes one tensor with all columns, or a tensor per column, as skl2onnx makes them; the names of the latter are
the columns', with `_` for what is no letter or digit. It answers labels and, if it has them, probabilities (a tensor or
a ZipMap), or one number per row. An ONNX file runs no code, and its weights must be in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd

from errors import ArtefactRefused
from registry.scores import SINGLE_TOLERANCE, Kind, Runtime, Scores
from registry.signature import Column, Frame

_LABELS = ("tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)")
_NUMBERS = ("tensor(float)", "tensor(double)")
_WHOLE = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_INPUTS = (*_LABELS, *_NUMBERS)
# Single precision is that of the processor, not the 10 bits of TF32.
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
# How skl2onnx spells a null text, after NumPy.
NULL_TEXT = "nan"


class OnnxRuntime(Runtime):
    """One session on one core; its classes may be in the file's metadata as `classes`, its columns as `feature_names`."""

    def __init__(self, content: bytes, provider: str | None = None) -> None:
        self._session = session(content, provider)
        about = self._session.get_modelmeta()
        self.name = "an ONNX model"
        self.fitted_with = {"producer": about.producer_name} if about.producer_name else {}
        self._inputs = [_Input(node) for node in self._session.get_inputs()]
        self._label, self._value = _outputs(self._session.get_outputs())
        self.has_probability = self._label is not None and self._value is not None
        self._feature_names = _listed(about.custom_metadata_map, "feature_names")
        classes = _listed(about.custom_metadata_map, "classes")
        self.classes = None if classes is None else np.array(classes)
        if self._value is not None and "double" not in self._value.type:
            self.tolerance = SINGLE_TOLERANCE
            self.batch_tolerance = MappingProxyType(dict.fromkeys(("classification", "regression"), SINGLE_TOLERANCE))

    def predict(self, model_input: Any, *, class_from: Literal["probabilities", "predict"] = "predict") -> Scores:
        del class_from  # one call answers both
        wanted = [output.name for output in (self._label, self._value) if output is not None]
        answers = self._session.run(wanted, self._tensors(model_input))
        if self._label is None:
            return Scores(_flat(np.asarray(answers[0], dtype=np.float64)), None)
        labels = _flat(np.asarray(answers[0]))
        return Scores(labels, self._probabilities(answers[1]) if self.has_probability else None)

    def kind(self) -> Kind:
        return "regression" if self._label is None else "classification"

    def columns(self, header: Sequence[str]) -> list[str] | None:
        if self._feature_names is not None:
            return [str(name) for name in self._feature_names]
        names = [_as_in(header, each.name) for each in self._inputs]
        one_each = all(each.width in (1, None) for each in self._inputs)
        return names if one_each and (len(names) > 1 or names[0] in header) else None

    def frames(self, columns: Sequence[Column]) -> list[Frame]:
        words = any(column.type in ("category", "text", "timestamp") for column in columns)
        return ["object"] if words or len(self._inputs) > 1 else ["array"]

    def libraries(self) -> dict[str, str]:
        return {name: version(name) for name in ("onnxruntime", "numpy", "pandas")}

    def _tensors(self, model_input: pd.DataFrame | npt.NDArray[np.float64]) -> dict[str, Any]:
        frame, count = pd.DataFrame(model_input), np.shape(model_input)[1]
        widths = [each.width or (count if len(self._inputs) == 1 else 1) for each in self._inputs]
        if sum(widths) != count:
            raise ValueError(
                f"the model takes {sum(widths)} columns, here are {count}; leave out of the reference, apart from key "
                "and target, what is no input, or put the names into the file's metadata as `feature_names`"
            )
        ends = np.cumsum(widths)
        return {
            each.name: each.tensor(frame.iloc[:, end - width : end])
            for each, width, end in zip(self._inputs, widths, ends, strict=True)
        }

    def _probabilities(self, answer: Any) -> npt.NDArray[np.float64]:
        """(n, k), or (n, 1) for what is a decision and no probability."""
        if not isinstance(answer, list):
            found = np.asarray(answer, dtype=np.float64)
            return _within_one(found.reshape(-1, 1) if found.ndim == 1 else found)
        if self.classes is None:
            self.classes = np.array(sorted(answer[0]))
        classes = self.classes.tolist()
        return _within_one(np.array([[row[label] for label in classes] for row in answer], dtype=np.float64))


class _Input:
    """One input of a model: how many columns it takes (None: it does not say) and as what."""

    def __init__(self, node: Any) -> None:
        self.name: str = node.name
        self._type: str = node.type
        self._rank = len(node.shape)
        if self._type not in _INPUTS or self._rank not in (1, 2) or isinstance(node.shape[0], int):
            raise ArtefactRefused(
                f"the model's input '{node.name}' is {node.type} of shape {node.shape}; expected float, double, int64, "
                "int32, string or bool, any number of rows by the number of columns: export it with a free first axis"
            )
        self.width = node.shape[1] if self._rank == 2 and isinstance(node.shape[1], int) else None

    def tensor(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        values = self._texts(frame) if self._type == "tensor(string)" else self._numbers(frame)
        return values.reshape(-1) if self._rank == 1 else values

    def _numbers(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        if self._type in _WHOLE and all(dtype.kind in "iu" for dtype in frame.dtypes):
            return np.ascontiguousarray(frame.to_numpy(), dtype=_WHOLE[self._type])
        values = np.ascontiguousarray(frame.to_numpy(), dtype=np.float64)
        if self._type in _NUMBERS:
            return values.astype(np.float32) if self._type == "tensor(float)" else values
        if not np.array_equal(values, np.trunc(values)):  # nor does NaN equal itself
            raise ValueError(f"the model's input '{self.name}' takes whole numbers without nulls")
        return values.astype(_WHOLE.get(self._type, bool))

    @staticmethod
    def _texts(frame: pd.DataFrame) -> npt.NDArray[np.object_]:
        texts = frame.to_numpy(dtype=object)
        return np.where(pd.isna(texts), NULL_TEXT, texts).astype(str).astype(object)


def session(content: bytes, provider: str | None = None) -> Any:
    """An inference session on one core, which answers the same each time, or on an accelerator.

    Raises:
        ArtefactRefused: the accelerator's `provider` is not there, or does not start.
    """
    on = [] if provider is None else [(provider, _PROVIDER_OPTIONS.get(provider, {}))]
    started: list[str] = []
    if provider is None or provider in onnxruntime.get_available_providers():
        found = onnxruntime.InferenceSession(content, _options(), providers=[*on, "CPUExecutionProvider"])
        started = found.get_providers()
    if provider is not None and provider not in started:
        raise ArtefactRefused(f"ONNX Runtime has no {provider} here, or cannot start it")
    return found


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails is raised as well
    return options


def _outputs(nodes: Sequence[Any]) -> tuple[Any, Any]:
    """(labels, what comes with them) of a classifier, (None, value) of a regressor.

    Raises:
        ArtefactRefused: there is neither a label nor a single number per row.
    """
    label = next((node for node in nodes if node.type in _LABELS), None)
    value = next((node for node in nodes if node.type in _NUMBERS or node.type.startswith("seq(map(")), None)
    wide = value is not None and len(value.shape) > 1 and isinstance(value.shape[1], int) and value.shape[1] > 1
    if label is None and (value is None or wide or value.type.startswith("seq(")):
        told = ", ".join(f"'{node.name}' {node.type} {node.shape}" for node in nodes)
        raise ArtefactRefused(
            f"the model's outputs are {told}; expected labels (int64 or string), with probabilities if there are any, "
            "or one number per row"
        )
    return label, value


def _listed(metadata: dict[str, str], name: str) -> list[Any] | None:
    if name not in metadata:
        return None
    try:
        found = json.loads(metadata[name])
    except ValueError:
        found = None
    if not isinstance(found, list) or not found:
        raise ArtefactRefused(f"the file's metadata `{name}` is {metadata[name]!r}; expected a JSON list")
    return found


def _as_in(header: Sequence[str], name: str) -> str:
    """The one column that skl2onnx would give this name, else the name."""
    if name in header:
        return name
    matches = [column for column in header if re.sub(r"\W", "_", column, flags=re.ASCII) == name]
    return matches[0] if len(matches) == 1 else name


def _within_one(found: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Without the rounding of single precision, which makes 1.0000004 of a certain class; decision values stay."""
    nearly = np.abs(found - 0.5) < 0.5 + SINGLE_TOLERANCE
    return np.where(nearly, np.clip(found, 0.0, 1.0), found)


def _flat(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
