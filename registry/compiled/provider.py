"""On what a form runs: on the processor, or on an accelerator that ONNX Runtime offers here and that is faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import onnxruntime

from registry.compiled.examined import ROWS, Examined, worth
from registry.compiled.parity import agreement
from registry.compiled.record import Accelerated, Compiled, Form, Kind, Lane
from registry.deviation import Deviation, deviation
from registry.scores import Runtime
from registry.sklearn_runtime import SklearnRuntime

#: What is in this machine and takes a graph in a moment. (TensorRT builds for minutes, Azure is a service elsewhere.)
_ACCELERATORS = (
    "CUDAExecutionProvider",
    "MIGraphXExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
)


def offered() -> list[str]:
    """The accelerators of this process's ONNX Runtime."""
    return [name for name in onnxruntime.get_available_providers() if name in _ACCELERATORS]


def fastest(
    providers: Sequence[str], seconds: Callable[[str], tuple[float, float] | None]
) -> tuple[str, float, float] | None:
    """The provider that is ahead of the processor by most, with the seconds of the processor and its own; None: none is by enough.

    Args:
        seconds: of the processor and of a provider, measured side by side; None: the provider cannot be used.
    """
    taken = [(name, *found) for name in providers if (found := seconds(name)) is not None]
    return min((each for each in taken if worth(each[2], each[1])), key=lambda each: each[2] / each[1], default=None)


def accelerated(
    examined: Examined,
    compiled: Compiled,
    contents: Mapping[Kind, bytes],
    scored: Mapping[Lane, Runtime],
    providers: Sequence[str],
) -> dict[Lane, Accelerated]:
    """The lanes that are scored faster on an accelerator.

    Args:
        contents: of the forms.
        scored: by what each lane is scored on the processor.
    """
    found: dict[Lane, Accelerated] = {}
    for lane in ROWS:
        kind = compiled.kind(lane)
        if kind not in contents:
            continue  # scikit-learn itself
        best = fastest(
            providers, partial(_seconds, examined, compiled, lane, kind, content=contents[kind], processor=scored[lane])
        )
        if best is not None:
            name, processor, accelerator = best
            found[lane] = Accelerated(
                provider=name, rows=examined.rows(lane), processor=processor, accelerator=accelerator
            )
    return found


def _seconds(
    examined: Examined, compiled: Compiled, lane: Lane, kind: Kind, provider: str, *, content: bytes, processor: Runtime
) -> tuple[float, float] | None:
    form = Form(kind, provider)
    try:
        runtime = examined.opened(form, content, compiled)
        if not _answers_as_here(examined, compiled, form, content, runtime):
            return None
        before, there = examined.seconds(lane, processor, runtime)
    except Exception:  # a driver, or an operator, may raise anything
        return None
    return before, there


def _answers_as_here(examined: Examined, compiled: Compiled, form: Form, content: bytes, runtime: Runtime) -> bool:
    """Whether a form answers there as it must here, and the same each time."""
    first, again = examined.answers(runtime), examined.answers(runtime)
    if deviation(first, again) != Deviation(0.0, 0):
        return False
    found, original = deviation(first, examined.scores), examined.original
    if form.kind == "quantised":
        assert compiled.quantised is not None
        return compiled.quantised.allows(found)
    if isinstance(original, SklearnRuntime):
        reference = (examined.features, examined.scores, examined.signature)
        there = agreement(original, content, *reference, provider=form.provider)  # raises where it differs
        return there.guards == compiled.guards
    scale = max(1.0, float(np.abs(examined.scores.prediction).max())) if original.kind() == "regression" else 1.0
    return found.flips == 0 and found.max_difference <= original.tolerance * scale
