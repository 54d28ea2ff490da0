"""Scoring a parsed chunk: one call of the model, and when it raises, a bisection down to the rows at fault."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from records.row_error import RowError
from registry.parsed import Parsed, Rows
from registry.row_text import shortened
from registry.scores import Runtime, Scores
from registry.signature import Output, Signature

#: A chunk costs at most this many calls of its model, and no new call begins after this many seconds.
MAX_CALLS = 4_096
MAX_SECONDS = 15.0
#: A model that has raised this often without one success is broken, not its rows.
HOPELESS_CALLS = 64
_MESSAGE_CHARS = 500


@dataclass
class Scored:
    """A chunk after scoring: every record is either in `rows` or in exactly one of `errors`.

    `rows` (n,) and `keys` as in `Parsed`; `prediction` (n,) labels, or float64 for regression; `probabilities` (n, k)
    in the order of the classes, or None; `errors` by row, those of the parsing included.
    """

    rows: Rows
    keys: Any
    prediction: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None
    errors: list[RowError]


def score(
    runtime: Runtime,
    parsed: Parsed,
    signature: Signature,
    *,
    max_calls: int = MAX_CALLS,
    max_seconds: float = MAX_SECONDS,
    fatal: tuple[type[BaseException], ...] = (),
) -> Scored:
    """Score the good rows of a chunk.

    A row for which the model raises, or for which it answers something that is not finite, becomes a `model_error`.
    To find such rows costs about 2 log2(n / bad) calls for each. The model is called at most `max_calls` times, and no
    call begins after `max_seconds`; rows unresolved by then become `model_error` too, with that reason, and may be
    retried as a job of their own.

    Args:
        fatal: exceptions that are not the model's, such as a worker's time limit; they go through.
    """
    model_input = runtime.model_input(parsed.features, signature)
    search = _Bisection(runtime, model_input, signature, max_calls, time.monotonic() + max_seconds, fatal)
    search.run(len(parsed.rows))
    positions, prediction, probabilities = search.joined()
    finite = _finite(prediction, probabilities)
    for position in positions[~finite].tolist():
        search.faults[position] = "the model's answer is not finite (NaN or infinite); check the inputs of this row"
    if not search.faults:
        return Scored(parsed.rows, parsed.keys, prediction, probabilities, parsed.errors)
    errors = [parsed.error(position, "model_error", message) for position, message in search.faults.items()]
    good = positions[finite]
    return Scored(
        rows=parsed.rows[good],
        keys=None if parsed.keys is None else parsed.keys.take(pa.array(good)),
        prediction=prediction[finite],
        probabilities=None if probabilities is None else probabilities[finite],
        errors=sorted([*parsed.errors, *errors], key=lambda error: error.row),
    )


@dataclass
class _Bisection:
    """Halves a range of rows until the model answers; `scored` and `faults` cover each row once."""

    runtime: Runtime
    model_input: Any
    signature: Signature
    max_calls: int
    deadline: float
    fatal: tuple[type[BaseException], ...]
    calls: int = 0
    scored: list[tuple[range, Scores]] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)  # message by position

    def run(self, rows: int) -> None:
        # Depth first: what scores is found early, so that a model that never answers is told from bad rows.
        ranges = [range(rows)] if rows else []
        while ranges:
            piece = ranges.pop()
            reason = self._exhausted()
            if reason:
                self.faults.update(dict.fromkeys(piece, reason))
                continue
            try:
                self.scored.append((piece, self._call(piece)))
            except self.fatal:
                raise
            except Exception as exc:  # a model may raise anything, and one row must not cost the others
                if len(piece) == 1:
                    self.faults[piece.start] = f"the model raised {_told(exc)}"
                    continue
                middle = (piece.start + piece.stop) // 2
                ranges += [range(middle, piece.stop), range(piece.start, middle)]

    def joined(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.float64] | None]:
        """Positions, predictions and probabilities of the rows that scored, in their order."""
        if not self.scored:
            return np.empty(0, np.int64), *_nothing(self.signature.output)
        positions = np.concatenate([np.arange(piece.start, piece.stop) for piece, _ in self.scored])
        prediction = np.concatenate([scores.prediction for _, scores in self.scored])
        probabilities = [scores.probabilities for _, scores in self.scored if scores.probabilities is not None]
        return positions, prediction, np.concatenate(probabilities) if probabilities else None

    def _call(self, piece: range) -> Scores:
        self.calls += 1
        inputs = self.model_input
        rows = (inputs.iloc if hasattr(inputs, "iloc") else inputs)[piece.start : piece.stop]
        output = self.signature.output
        scores = self.runtime.predict(rows, class_from=output.class_from if output else "predict")
        if output is not None and not output.has_probability:
            scores = Scores(scores.prediction, None)  # what comes with the label is a decision, no probability
        answers = [scores.prediction] if scores.probabilities is None else [scores.prediction, scores.probabilities]
        if scores.prediction.ndim != 1 or any(len(answer) != len(piece) for answer in answers):
            shapes = " and ".join(str(answer.shape) for answer in answers)
            raise ValueError(f"answers of shape {shapes} for {len(piece)} rows")
        return scores

    def _exhausted(self) -> str | None:
        if self.calls >= HOPELESS_CALLS and not self.scored:
            some = next(iter(self.faults.values()), "the model raises")
            return f"{some} (so it did on each of {self.calls} calls, and the other rows were given up)"
        if self.calls >= self.max_calls or (self.calls and time.monotonic() > self.deadline):
            return (
                f"the model raises on some rows of this chunk, and after {self.calls} calls this row was not told "
                "from them; retry the failed rows as a job of their own"
            )
        return None


def _nothing(output: Output | None) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64] | None]:
    """Prediction and probabilities of no row at all."""
    if output is None or output.classes is None:
        return np.empty(0, np.float64), None
    probabilities = np.empty((0, len(output.classes))) if output.has_probability else None
    return np.array(output.classes)[:0], probabilities


def _finite(prediction: npt.NDArray[Any], probabilities: npt.NDArray[np.float64] | None) -> npt.NDArray[np.bool_]:
    finite = np.isfinite(prediction) if prediction.dtype.kind == "f" else np.ones(len(prediction), dtype=bool)
    return finite if probabilities is None else finite & np.isfinite(probabilities).all(axis=1)


def _told(exc: Exception) -> str:
    return shortened(f"{type(exc).__name__}: {exc}", _MESSAGE_CHARS)
