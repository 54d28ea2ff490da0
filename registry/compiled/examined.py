"""A model whose forms are tried: what they are compared with, and how fast they are on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry.compiled.record import Compiled, Form, Lane
from registry.compiled.runtime import opened
from registry.deviation import Deviation, deviation
from registry.golden import Golden
from registry.scores import Runtime, Scores
from registry.signature import Signature

#: Rows in one call, where the lane is measured: a single record, and about a chunk.
ROWS: dict[Lane, int] = {"interactive": 1, "bulk": 16_384}
#: What is not faster by this much is not worth a second form of the model.
WORTH = 0.9
_REPEATS = 5


def worth(this: float, otherwise: float) -> bool:
    """Whether seconds are fewer by enough."""
    return this < WORTH * otherwise


@dataclass(frozen=True)
class Examined:
    """A model with the reference (n rows): its `features` as `Parsed` has them, its `scores` and the golden rows.

    `artefact` is the file of an ONNX model, which can be quantised or run on an accelerator as it stands.
    """

    original: Runtime
    features: Any
    scores: Scores
    signature: Signature
    golden: Sequence[Golden]
    artefact: bytes | None = None

    def opened(self, form: Form, content: bytes, compiled: Compiled) -> Runtime:
        return opened(form, content, self.original, compiled, self.signature)

    def answers(self, runtime: Runtime) -> Scores:
        """Of the reference, by a form of the model."""
        found = runtime.predict(runtime.model_input(self.features, self.signature), class_from="probabilities")
        return found if self.scores.probabilities is not None else Scores(found.prediction, None)

    def deviation(self, runtime: Runtime) -> Deviation:
        return deviation(self.answers(runtime), self.scores)

    def rows(self, lane: Lane) -> int:
        return min(ROWS[lane], int(self.features.num_rows))

    def seconds(self, lane: Lane, *runtimes: Runtime) -> list[float]:
        """Medians, by turns, each from the features of parsed rows to the scores."""
        piece = self.features.slice(0, self.rows(lane))
        taken: list[list[float]] = [[] for _ in runtimes]
        for _ in range(_REPEATS):
            for runtime, times in zip(runtimes, taken, strict=True):
                began = time.perf_counter()
                runtime.predict(runtime.model_input(piece, self.signature), class_from="probabilities")
                times.append(time.perf_counter() - began)
        return [statistics.median(times) for times in taken]
