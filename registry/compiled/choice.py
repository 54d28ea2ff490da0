"""Whether a version is scored by a compiled form, and in which lanes: only where it answers the same and is faster here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from registry.compiled.compile import NotCompilable, compile_model
from registry.compiled.most_asked import most_asked
from registry.compiled.parity import agreement
from registry.compiled.record import Compiled, Lane, Seconds, Wanted
from registry.compiled.runtime import CompiledRuntime
from registry.row_text import storable
from registry.scores import Runtime, Scores
from registry.signature import Signature
from registry.sklearn_runtime import SklearnRuntime

#: Rows in one call, where the lane is measured: a single record, and about a chunk.
ROWS: dict[Lane, int] = {"interactive": 1, "bulk": 16_384}
#: What is not faster by this much is not worth a second form of the model.
WORTH = 0.9
_REPEATS = 5


def choose(
    original: Runtime,
    *,
    features: Any,
    scores: Scores,
    signature: Signature,
    wanted: Wanted,
    put: Callable[[bytes], str],
) -> Compiled:
    """Compile a model, compare the two, and measure both.

    Args:
        features: the reference (n rows), as `Parsed` has it, with the `scores` of the original.
        put: stores the compiled form and returns its digest.

    Raises:
        NotCompilable: it is wanted in any case, and cannot be.
    """
    if not isinstance(original, SklearnRuntime):
        return Compiled(wanted=wanted, reason="it is an ONNX model as it stands")
    try:
        content = compile_model(original, signature)
        agreed = agreement(original, content, features, scores, signature)
    except NotCompilable as exc:
        if wanted == "onnx":
            raise
        return Compiled(wanted=wanted, reason=storable(str(exc)))
    compiled = CompiledRuntime(original, content, signature, agreed.guards)
    sorted_by = most_asked(original, signature)
    if sorted_by:
        in_order = CompiledRuntime(original, content, signature, agreed.guards, sorted_by)
        as_they_come, ordered = _measured((compiled, in_order), features, signature, ROWS["bulk"])
        compiled, sorted_by = (in_order, sorted_by) if ordered < WORTH * as_they_come else (compiled, [])
    seconds = {lane: _seconds(original, compiled, features, signature, rows) for lane, rows in ROWS.items()}
    lanes = [lane for lane, found in seconds.items() if wanted == "onnx" or found.onnx < WORTH * found.sklearn]
    return Compiled(
        wanted=wanted,
        reason=None if lanes else "it is not faster",
        digest=put(content) if lanes else None,
        size=len(content) if lanes else None,
        lanes=lanes,
        guards=agreed.guards,
        sorted_by=sorted_by if "bulk" in lanes else [],
        rows=agreed.rows,
        probes=agreed.probes,
        flips=agreed.flips,
        max_difference=agreed.max_difference,
        seconds=seconds,
    )


def _seconds(original: Runtime, compiled: Runtime, features: Any, signature: Signature, rows: int) -> Seconds:
    sklearn, onnx = _measured((original, compiled), features, signature, rows)
    return Seconds(rows=min(rows, features.num_rows), sklearn=sklearn, onnx=onnx)


def _measured(runtimes: Sequence[Runtime], features: Any, signature: Signature, rows: int) -> list[float]:
    """Medians of seconds, by turns, each from the features of parsed rows to the scores."""
    piece = features.slice(0, rows)
    taken: list[list[float]] = [[] for _ in runtimes]
    for _ in range(_REPEATS):
        for runtime, times in zip(runtimes, taken, strict=True):
            began = time.perf_counter()
            runtime.predict(runtime.model_input(piece, signature), class_from="probabilities")
            times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in taken]
