"""Examination of a model before it is registered: an artefact and a reference CSV become a package.

The model is loaded, so this runs where the worker's libraries are, and only for artefacts that are to be trusted.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from errors import ArtefactRefused, InvalidInput, InvalidPackage
from registry.cells import moments, nulled
from registry.estimator import kind_of
from registry.golden import Golden, check_golden, first_difference, golden_inputs, score_golden
from registry.metrics import reference_metrics
from registry.model_input import to_model_input
from registry.parse import Parsed, parse_csv
from registry.reference import Reference, infer_column, read_reference
from registry.runtime import ArtefactFormat, Runtime, Scores, load
from registry.signature import Column, Frame, Output, Signature

__all__ = ["Golden", "Package", "check_golden", "examine"]

GOLDEN_ROWS = 50
#: How far an answer may depend on which other rows are in the same call: the rounding of BLAS, no more.
BATCH_TOLERANCE = 1e-12
REGRESSION_BATCH_TOLERANCE = 1e-9
_LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "joblib", "skops")


@dataclass(frozen=True)
class Sample:
    """The reference as the model saw it: features (n rows), its scores, and the text of the target if there is one."""

    features: Any
    scores: Scores
    targets: list[str] | None


class Package(BaseModel):
    """What is stored with a version. `fitted_with`: versions by library, and of Python, that it was examined with.

    `sample` is what the profiles of the version are compared with; it is not part of the JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    signature: Signature
    golden: list[Golden]
    metrics: dict[str, float]
    fitted_with: dict[str, str]
    format: ArtefactFormat
    sample: Sample | None = Field(None, exclude=True)


def examine(
    artefact: Path,
    *,
    format: ArtefactFormat,
    digest: str,
    reference: Path,
    key: str | None,
    target: str | None,
    delimiter: str = ",",
) -> Package:
    """Load a model, infer its signature from the reference, and try it on all of it.

    The columns are the names that the model was fitted on (`feature_names_in_` of it, or of the preprocessor), else the
    dict's `feature_names`, else all columns of the reference but `key` and `target`. Their types are inferred as
    `registry.reference` says. How the model wants its input is found by trying: a DataFrame with strings, one with
    categories, a float array, and then once more with dates as timestamps.

    Raises:
        ArtefactRefused: as of `registry.runtime.load`.
        InvalidPackage: the reference cannot be read or lacks columns (all are named), the model takes it in no form,
            is neither classifier nor regressor, has more than one output, or scores a row differently when other
            rows are in the same call.
    """
    runtime = load(artefact, format=format, digest=digest)
    sample = read_reference(reference, delimiter)
    names = _feature_names(runtime, sample, key, target)
    signature, parsed, scores = _first_that_works(runtime, sample, names)
    output = _output(runtime, signature, parsed, scores)
    signature = signature.model_copy(update={"key": key, "target": target, "output": output})
    metrics, targets = {}, None
    if target is not None and target in sample.header:
        targets = sample.columns[target].to_pylist()
        metrics = reference_metrics(target, targets, scores.prediction, scores.probabilities, output)
    golden = _golden(runtime, signature, sample, scores)
    return Package(
        signature=signature,
        golden=golden,
        metrics=metrics,
        fitted_with=_versions(),
        format=format,
        sample=Sample(parsed.features, scores, targets),
    )


def _feature_names(runtime: Runtime, sample: Reference, key: str | None, target: str | None) -> list[str]:
    if key is not None and key not in sample.header:
        raise InvalidPackage(f"the key column '{key}' is not in the reference; its columns are {_listed(sample)}")
    first = runtime.model if runtime.preprocessor is None else runtime.preprocessor
    fitted = getattr(first, "feature_names_in_", None)
    if fitted is None:
        fitted = runtime.feature_names
    if fitted is None:
        return [name for name in sample.header if name not in (key, target)]
    names = [str(name) for name in fitted]
    wanted = Signature(columns=[Column(name=name, type="text") for name in names])
    try:
        wanted.check_columns(sample.header)
    except InvalidInput as exc:
        raise InvalidPackage(f"the reference does not suit the model: {exc}", exc.problems) from exc
    return names


def _first_that_works(runtime: Runtime, sample: Reference, names: list[str]) -> tuple[Signature, Parsed, Scores]:
    failures: list[str] = []
    for columns in _candidates(sample, names):
        for frame in _frames(runtime, columns):
            signature = Signature(columns=columns, frame=frame)
            parsed = _parsed(sample, signature)
            try:
                return signature, parsed, runtime.predict(to_model_input(parsed.features, signature))
            except Exception as exc:  # a model may raise anything; all of it is told below
                failures.append(f"as {_FRAME_WORDS[frame]}: {type(exc).__name__}: {exc}")
    raise InvalidPackage(
        f"the model does not take the reference in any form; its columns were {', '.join(names)}. "
        + "; ".join(failures)
    )


_FRAME_WORDS = {
    "object": "a DataFrame with strings",
    "category": "a DataFrame with categories",
    "array": "an array of floats",
}


def _candidates(sample: Reference, names: list[str]) -> Iterator[list[Column]]:
    """The columns with dates as text, as `read_csv` gives them, and, if there are any, with dates as timestamps."""
    columns = [infer_column(name, sample.columns[name]) for name in names]
    yield columns
    dated = [_as_timestamp(column, sample.columns[column.name]) for column in columns]
    if dated != columns:
        yield dated


def _as_timestamp(column: Column, texts: Any) -> Column:
    if column.type not in ("category", "text"):
        return column
    nullable = nulled(texts)
    timestamp = Column(name=column.name, type="timestamp", nullable=bool(nullable.null_count))
    return column if moments(timestamp, nullable)[1] else timestamp


def _frames(runtime: Runtime, columns: list[Column]) -> list[Frame]:
    words = any(column.type in ("category", "text", "timestamp") for column in columns)
    frames: list[Frame] = ["object", "category"] if words else ["object"]
    if words:
        return frames
    first = runtime.model if runtime.preprocessor is None else runtime.preprocessor
    named = getattr(first, "feature_names_in_", None) is not None
    return ["object", "array"] if named else ["array", "object"]


def _parsed(sample: Reference, signature: Signature) -> Parsed:
    parsed = parse_csv(
        sample.data,
        header=sample.header,
        delimiter=sample.delimiter,
        signature=signature,
        key_column=None,
        first_row=1,
        first_line=sample.first_line,
        max_cell_chars=len(sample.data),
    )
    assert not parsed.errors, parsed.errors[0]  # the types were inferred from these very cells
    return parsed


def _output(runtime: Runtime, signature: Signature, parsed: Parsed, scores: Scores) -> Output:
    kind = kind_of(runtime.model)
    if kind is None:
        raise InvalidPackage(
            f"a {type(runtime.model).__name__} is neither a classifier nor a regressor; register one that is"
        )
    if scores.prediction.ndim != 1 or (kind == "classification" and runtime.classes is None):
        raise InvalidPackage("the model has more than one output; register a model for each of them")
    if kind == "regression":
        return Output(kind=kind)
    assert runtime.classes is not None
    classes = runtime.classes.tolist()
    return Output(
        kind=kind,
        classes=classes,
        class_type=_class_type(classes),
        positive=classes[1] if len(classes) == 2 else None,
        has_probability=runtime.has_probability,
        class_from=_class_from(runtime, signature, parsed, scores),
    )


def _class_type(classes: list[Any]) -> Literal["integer", "number", "text", "boolean"]:
    kinds: dict[type, Literal["integer", "number", "text", "boolean"]] = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "text",
    }
    found = {type(label) for label in classes}
    if len(found) != 1 or not found <= kinds.keys():
        names = ", ".join(sorted(kind.__name__ for kind in found))
        raise InvalidPackage(f"the classes are of types {names}; expected one of int, float, str or bool for all")
    return kinds[found.pop()]


def _class_from(
    runtime: Runtime, signature: Signature, parsed: Parsed, scores: Scores
) -> Literal["probabilities", "predict"]:
    """Off the probabilities only if that is right for this kind of estimator, and was for every row of the reference."""
    if not runtime.takes_class_from_probabilities:
        return "predict"
    quick = runtime.predict(to_model_input(parsed.features, signature), class_from="probabilities")
    return "probabilities" if np.array_equal(quick.prediction, scores.prediction) else "predict"


def _golden(runtime: Runtime, signature: Signature, sample: Reference, scores: Scores) -> list[Golden]:
    """Up to 50 rows spread over the reference, which must score alone as they did among all rows."""
    spread = np.unique(np.linspace(0, len(sample) - 1, min(GOLDEN_ROWS, len(sample))).round().astype(np.int64))
    texts = [sample.columns[name].take(spread).to_pylist() for name in signature.names]
    inputs = [golden_inputs(cells) for cells in zip(*texts, strict=True)]
    probabilities = None if scores.probabilities is None else scores.probabilities[spread]
    expected = scores.prediction[spread]
    _check_alone(runtime, signature, inputs, expected, probabilities)
    lists = [None] * len(spread) if probabilities is None else probabilities.tolist()
    return [
        Golden(inputs=line, prediction=label, probabilities=row)
        for line, label, row in zip(inputs, expected.tolist(), lists, strict=True)
    ]


def _check_alone(runtime: Runtime, signature: Signature, inputs: list[str], expected: Any, probabilities: Any) -> None:
    regression = signature.output is not None and signature.output.kind == "regression"
    tolerance = REGRESSION_BATCH_TOLERANCE if regression else BATCH_TOLERANCE
    try:
        together = score_golden(runtime, signature, inputs)
    except ArtefactRefused as exc:
        raise InvalidPackage(f"{exc}; leave such rows out of the reference, or mend the model") from exc
    difference = first_difference(together, expected, probabilities, tolerance)
    if difference is not None:
        position, told = difference
        raise InvalidPackage(
            f"the model's answer depends on which rows are scored with it: the row {inputs[position]} {told} when "
            "fewer rows are in the call. Make it deterministic and free of statistics over the batch"
        )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}


def _listed(sample: Reference) -> str:
    return ", ".join(sample.header)
