"""Golden rows: a few rows of the reference with the outputs expected, by which a worker knows that it has the model."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from errors import ArtefactRefused, ScorehouseError
from registry.parse import parse_csv
from registry.parsed import Parsed
from registry.runtime import Runtime
from registry.scoring import Scored, score
from registry.signature import Label, Signature

#: How far a worker's answer may be off on golden rows: another processor may round a long sum differently.
TOLERANCE = 1e-9
_MAX_CELL_CHARS = 10_000_000  # what is golden was accepted before


class Golden(BaseModel):
    """`inputs` is one CSV record with the signature's columns in its order, comma-separated, as the reference has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: str
    prediction: Label
    probabilities: list[float] | None


def check_golden(
    runtime: Runtime, signature: Signature, golden: Sequence[Golden], tolerance: float = TOLERANCE
) -> None:
    """Score the golden rows and compare: labels exactly, probabilities within `tolerance`.

    Regression is compared within `tolerance` times the expected value, or times 1 where that is smaller.

    Raises:
        ArtefactRefused: some row cannot be scored or differs; says which and by how much.
    """
    scored = score_golden(runtime, signature, [row.inputs for row in golden])
    expected = np.array([row.prediction for row in golden])
    probabilities = [row.probabilities for row in golden if row.probabilities is not None]
    difference = first_difference(scored, expected, np.array(probabilities) if probabilities else None, tolerance)
    if difference is not None:
        position, told = difference
        raise ArtefactRefused(
            f"golden row {position + 1} ({golden[position].inputs}) {told}; this process does not score as the one "
            "that registered the version: compare the library versions, or register the model again"
        )


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
        return at, f"has a probability that is off by {off[at]:.3g} (at most {tolerance:g} is)"
    return None
