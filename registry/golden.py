"""Golden rows: a few rows of the reference with the outputs expected, by which a worker knows that it has the model.

They are scored in one call, here and there. Where the libraries and the processor are those of the registration, the
answers must be the same to the last bit; elsewhere within the runtime's tolerance.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from errors import ArtefactRefused, InvalidPackage, ScorehouseError
from registry.deviation import Answers, Deviation, deviation
from registry.environment import environment
from registry.parse import parse_csv
from registry.parsed import Parsed
from registry.reference import Reference
from registry.scores import Runtime, Scores
from registry.scoring import Scored, score
from registry.signature import Label, Signature

GOLDEN_ROWS = 50
_MAX_CELL_CHARS = 10_000_000  # what is golden was accepted before


class Golden(BaseModel):
    """`inputs` is one CSV record with the signature's columns in its order, comma-separated, as the reference has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: str
    prediction: Label
    probabilities: list[float] | None


def golden_rows(runtime: Runtime, signature: Signature, sample: Reference, scores: Scores) -> list[Golden]:
    """Up to 50 rows spread over the reference, as one call of them answers.

    Args:
        scores: of the whole reference.

    Raises:
        InvalidPackage: a row of them cannot be scored, or scores differently when other rows are in the call.
    """
    spread = np.unique(np.linspace(0, len(sample) - 1, min(GOLDEN_ROWS, len(sample))).round().astype(np.int64))
    texts = [sample.columns[name].take(spread).to_pylist() for name in signature.names]
    inputs = [golden_inputs(cells) for cells in zip(*texts, strict=True)]
    try:
        together = score_golden(runtime, signature, inputs)
    except ArtefactRefused as exc:
        raise InvalidPackage(f"{exc}; leave such rows out of the reference, or mend the model") from exc
    assert signature.output is not None, "golden rows come after the output"
    tolerance = runtime.batch_tolerance[signature.output.kind]
    probabilities = None if scores.probabilities is None else scores.probabilities[spread]
    difference = first_difference(together, scores.prediction[spread], probabilities, tolerance)
    if difference is not None:
        position, told = difference
        raise InvalidPackage(
            f"the model's answer depends on which rows are scored with it: the row {inputs[position]} {told} when "
            "fewer rows are in the call. Make it deterministic and free of statistics over the batch"
        )
    rows = [None] * len(spread) if together.probabilities is None else together.probabilities.tolist()
    return [
        Golden(inputs=line, prediction=label, probabilities=row)
        for line, label, row in zip(inputs, together.prediction.tolist(), rows, strict=True)
    ]


def check_golden(
    runtime: Runtime, signature: Signature, golden: Sequence[Golden], examined_with: Mapping[str, str] | None = None
) -> None:
    """Score the golden rows and compare: labels exactly; probabilities, and numbers of regression, as the module says.

    Args:
        examined_with: the environment that the expected outputs come from; None: another one than this.

    Raises:
        ArtefactRefused: some row cannot be scored or differs; says which and by how much.
    """
    scored = score_golden(runtime, signature, [row.inputs for row in golden])
    expected = np.array([row.prediction for row in golden])
    probabilities = [row.probabilities for row in golden if row.probabilities is not None]
    here = environment(runtime)
    tolerance = 0.0 if examined_with == here else runtime.tolerance
    difference = first_difference(scored, expected, np.array(probabilities) if probabilities else None, tolerance)
    if difference is not None:
        position, told = difference
        raise ArtefactRefused(
            f"golden row {position + 1} ({golden[position].inputs}) {told}; this process does not score as the one "
            f"that registered the version ({_changed(examined_with or {}, here)}): register the model again, or give "
            "this worker what it was registered with"
        )


def check_golden_within(runtime: Runtime, signature: Signature, golden: Sequence[Golden], permitted: Deviation) -> None:
    """Score the golden rows by a form that need not answer as its original does.

    Raises:
        ArtefactRefused: some row cannot be scored, or they differ by more than is `permitted`.
    """
    told = beyond(score_golden(runtime, signature, [row.inputs for row in golden]), golden, permitted)
    if told is not None:
        raise ArtefactRefused(told)


def beyond(found: Answers, golden: Sequence[Golden], permitted: Deviation) -> str | None:
    """How answers to the golden rows differ, if it is by more than is `permitted`."""
    off = golden_deviation(found, golden)
    if off.max_difference <= permitted.max_difference and off.flips <= permitted.flips:
        return None
    return (
        f"the golden rows differ by up to {off.max_difference:.3g} and in {off.flips} classes, "
        f"{permitted.max_difference:.3g} and {permitted.flips} are permitted"
    )


def golden_deviation(found: Answers, golden: Sequence[Golden]) -> Deviation:
    """How far answers to the golden rows are from what the original answered."""
    probabilities = [row.probabilities for row in golden if row.probabilities is not None]
    prediction = np.array([row.prediction for row in golden])
    return deviation(found, Scores(prediction, np.array(probabilities) if probabilities else None))


def _changed(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    other = [f"{name} {there.get(name, 'unknown')}, here {value}" for name, value in here.items()]
    told = [text for text, (name, value) in zip(other, here.items(), strict=True) if there.get(name) != value]
    return "; ".join(told) or "the libraries and the processor are the same"


def score_golden(runtime: Runtime, signature: Signature, inputs: Sequence[str]) -> Scored:
    """Score golden inputs through the same parser and scorer as any chunk.

    Raises:
        ArtefactRefused: a row of them cannot be parsed or scored.
    """
    try:
        scored = score(runtime, parse_golden(signature, inputs), signature)
    except ScorehouseError as exc:
        raise ArtefactRefused(f"the golden rows cannot be read: {exc}") from exc
    if scored.errors:
        first = scored.errors[0]
        raise ArtefactRefused(f"golden row {first.row} ({first.raw}) cannot be scored: {first.message}")
    return scored


def parse_golden(signature: Signature, inputs: Sequence[str]) -> Parsed:
    return parse_csv(
        "".join(f"{line}\n" for line in inputs).encode(),
        header=signature.names,
        delimiter=",",
        signature=signature,
        key_column=None,
        first_row=1,
        first_line=1,
        max_cell_chars=_MAX_CELL_CHARS,
    )


def golden_inputs(cells: Sequence[str]) -> str:
    """Cells as one CSV record without its line end."""
    record = io.StringIO()
    csv.writer(record).writerow(cells)
    return record.getvalue().removesuffix("\r\n")


def first_difference(
    scored: Scored, expected: npt.NDArray[Any], probabilities: npt.NDArray[np.float64] | None, tolerance: float
) -> tuple[int, str] | None:
    """Position of the first row that differs from what is expected, and how; None when none does."""
    got = scored.prediction
    if got.dtype.kind == "f" and scored.probabilities is None:
        bad = np.abs(got - expected.astype(np.float64)) > tolerance * np.maximum(1.0, np.abs(expected))
    else:
        bad = np.array([one != other for one, other in zip(got.tolist(), expected.tolist(), strict=True)], dtype=bool)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        return at, f"gives {got.tolist()[at]!r} instead of {expected.tolist()[at]!r}"
    if probabilities is None or scored.probabilities is None:
        same = probabilities is None and scored.probabilities is None
        return None if same or not len(got) else (0, "differs in whether there are probabilities")
    if probabilities.shape != scored.probabilities.shape:
        return 0, f"has probabilities of shape {scored.probabilities.shape} instead of {probabilities.shape}"
    off = np.abs(scored.probabilities - probabilities).max(axis=1)
    if (off > tolerance).any():
        at = int(np.flatnonzero(off > tolerance)[0])
        return at, f"has a probability that is off by {off[at]:.3g} (at most {tolerance:g} is allowed)"
    return None
