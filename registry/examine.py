"""Examination of a model before it is registered: an artefact and a reference CSV become a package.

The model is loaded, so this runs where the worker's libraries are, and only for artefacts that are to be trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from errors import InvalidPackage
from registry.compiled.record import Compiled, Wanted
from registry.environment import environment
from registry.features import features_of
from registry.golden import Golden, check_golden, golden_rows
from registry.metrics import reference_metrics
from registry.model_input import to_model_input
from registry.output import output_of
from registry.parse import Parsed
from registry.reference import read_reference
from registry.runtime import ArtefactFormat, load
from registry.scores import Runtime, Scores
from registry.signature import Signature
from registry.signature_file import EditedSignature

__all__ = ["Golden", "Package", "check_golden", "examine"]


_TIMED_ROWS = 200


@dataclass(frozen=True)
class Sample:
    """The reference as the model saw it: features (n rows), its scores, and the text of the target if there is one."""

    features: Any
    scores: Scores
    targets: list[str] | None


class Package(BaseModel):
    """What is stored with a version.

    `fitted_with` is what the artefact says of itself, version by library; `examined_with` the environment in which the
    golden rows were scored. `seconds_per_row` is what the model itself takes for one more row in a call.
    `sample` is what the profiles of the version are compared with; it is not part of the JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    signature: Signature
    golden: list[Golden]
    metrics: dict[str, float]
    fitted_with: dict[str, str]
    examined_with: dict[str, str]
    format: ArtefactFormat
    compiled: Compiled
    seconds_per_row: float
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
    edited: EditedSignature | None = None,
    mismatch_allowed: bool = False,
    wanted: Wanted = "sklearn",
    within: float | None = None,
    put: Callable[[bytes], str] | None = None,
) -> Package:
    """Load a model, infer its signature from the reference, and try it on all of it.

    The columns are those that the model says it takes, else all columns of the reference but `key` and `target`. Their
    types are those of the `edited` signature, else inferred as `registry.reference` says.

    Args:
        wanted: the runtime; `auto` and `onnx` compile the model, see `registry.compiled.choice`.
        within: how far a quantised form may be off, see `registry.compiled.tolerated`; None: there is to be none.
        put: stores a form and returns its digest.

    Raises:
        ArtefactRefused: as of `registry.runtime.load`.
        InvalidPackage: the reference cannot be read or lacks columns (all are named), the edited signature suits the
            model or the reference not, the model takes it in no form, is neither classifier nor regressor, has more
            than one output, scores a row differently when other rows are in the same call, or has no compiled form
            although that is `wanted`.
    """
    runtime = load(artefact, format=format, digest=digest, mismatch_allowed=mismatch_allowed)
    sample = read_reference(reference, delimiter)
    targets = sample.columns[target].to_pylist() if target is not None and target in sample.header else None
    signature, parsed, scores = features_of(runtime, sample, key, target, edited)
    output = output_of(runtime, scores, targets)
    if not output.has_probability:
        scores = Scores(scores.prediction, None)
    output = output.model_copy(update={"class_from": _class_from(runtime, signature, parsed, scores)})
    signature = signature.model_copy(update={"output": output})
    metrics = {}
    if target is not None and targets is not None:
        metrics = reference_metrics(target, targets, scores.prediction, scores.probabilities, output)
    golden = golden_rows(runtime, signature, sample, scores)
    return Package(
        signature=signature,
        golden=golden,
        metrics=metrics,
        fitted_with=dict(runtime.fitted_with),
        examined_with=environment(runtime),
        format=format,
        compiled=_compiled(
            wanted,
            put,
            within,
            original=runtime,
            features=parsed.features,
            scores=scores,
            signature=signature,
            golden=golden,
            artefact=artefact.read_bytes() if format == "onnx" else None,
        ),
        seconds_per_row=_seconds_per_row(runtime, signature, parsed.features),
        sample=Sample(parsed.features, scores, targets),
    )


def _seconds_per_row(runtime: Runtime, signature: Signature, features: pa.Table) -> float:
    """What each further row of a call takes: the time of many rows less that of one."""
    many = pa.concat_tables([features] * -(-_TIMED_ROWS // features.num_rows)).slice(0, _TIMED_ROWS)

    def seconds(rows: pa.Table) -> float:
        began = time.perf_counter()
        runtime.predict(runtime.model_input(rows, signature))
        return time.perf_counter() - began

    return max(seconds(many) - seconds(features.slice(0, 1)), 0.0) / (_TIMED_ROWS - 1)


def _compiled(wanted: Wanted, put: Callable[[bytes], str] | None, within: float | None, **examined: Any) -> Compiled:
    """`examined` as `registry.compiled.examined.Examined` takes it."""
    if wanted == "sklearn" or put is None:
        return Compiled(wanted=wanted, reason="it is not wanted")
    from registry.compiled.choice import choose  # noqa: PLC0415 - the converters take a second and 50 MB
    from registry.compiled.compile import NotCompilable  # noqa: PLC0415 - as above
    from registry.compiled.examined import Examined  # noqa: PLC0415 - as above

    try:
        return choose(Examined(**examined), wanted=wanted, put=put, within=within)
    except NotCompilable as exc:
        raise InvalidPackage(
            f"the model cannot be compiled to ONNX: {exc}; register it with --runtime auto, which compiles where it can"
        ) from exc


def _class_from(
    runtime: Runtime, signature: Signature, parsed: Parsed, scores: Scores
) -> Literal["probabilities", "predict"]:
    """Off the probabilities only if that is right for this kind of estimator, and was for every row of the reference."""
    if scores.probabilities is None or not runtime.takes_class_from_probabilities():
        return "predict"
    quick = runtime.predict(to_model_input(parsed.features, signature), class_from="probabilities")
    return "probabilities" if np.array_equal(quick.prediction, scores.prediction) else "predict"
