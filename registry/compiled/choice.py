"""Which forms of a version score in which lanes: only what answers the same, or within what was stated, and is faster here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from registry.compiled.compile import NotCompilable, compile_model
from registry.compiled.examined import ROWS, Examined, worth
from registry.compiled.most_asked import most_asked
from registry.compiled.parity import agreement
from registry.compiled.provider import accelerated, offered
from registry.compiled.record import Compiled, Kind, Lane, Seconds, Wanted
from registry.compiled.runtime import CompiledRuntime
from registry.compiled.tolerated import quantised
from registry.row_text import storable
from registry.scores import Runtime
from registry.sklearn_runtime import SklearnRuntime


def choose(
    examined: Examined,
    *,
    wanted: Wanted,
    put: Callable[[bytes], str],
    within: float | None = None,
    accelerators: Sequence[str] | None = None,
) -> Compiled:
    """Make the forms of a model, compare each with it, and measure.

    Args:
        put: stores the content of a form and returns its digest.
        within: how far a quantised form may be off (`registry.deviation.permitted`); None: there is to be none.
        accelerators: the providers to try; None: those that are here.

    Raises:
        NotCompilable: it is wanted in any case, and cannot be.
    """
    contents: dict[Kind, bytes] = {} if examined.artefact is None else {"original": examined.artefact}
    found, compiled = _compiled(examined, wanted, contents)
    if found.lanes:
        found = found.model_copy(update={"digest": put(contents["compiled"]), "size": len(contents["compiled"])})
    scored: dict[Lane, Runtime] = {
        lane: examined.original if compiled is None or lane not in found.lanes else compiled for lane in ROWS
    }
    if within is not None:
        tried, best = quantised(examined, found, within, scored)
        if best is not None:
            content, runtime = best
            contents["quantised"] = content
            scored |= dict.fromkeys(tried.lanes, runtime)
            tried = tried.model_copy(update={"digest": put(content), "size": len(content)})
        found = found.model_copy(update={"quantised": tried})
    providers = offered() if accelerators is None else accelerators
    return found.model_copy(update={"accelerated": accelerated(examined, found, contents, scored, providers)})


def _compiled(
    examined: Examined, wanted: Wanted, contents: dict[Kind, bytes]
) -> tuple[Compiled, CompiledRuntime | None]:
    """The form that answers the same, if there is one; its content is put to `contents`."""
    original, signature = examined.original, examined.signature
    if not isinstance(original, SklearnRuntime):
        return Compiled(wanted=wanted, reason="it is an ONNX model as it stands"), None
    try:
        content = compile_model(original, signature)
        agreed = agreement(original, content, examined.features, examined.scores, signature)
    except NotCompilable as exc:
        if wanted == "onnx":
            raise
        return Compiled(wanted=wanted, reason=storable(str(exc))), None
    compiled = CompiledRuntime(original, content, signature, agreed.guards)
    sorted_by = most_asked(original, signature)
    if sorted_by:
        in_order = CompiledRuntime(original, content, signature, agreed.guards, sorted_by)
        as_they_come, ordered = examined.seconds("bulk", compiled, in_order)
        compiled, sorted_by = (in_order, sorted_by) if worth(ordered, as_they_come) else (compiled, [])
    seconds = {lane: _seconds(examined, compiled, lane) for lane in ROWS}
    lanes = [lane for lane, found in seconds.items() if wanted == "onnx" or worth(found.onnx, found.sklearn)]
    contents["compiled"] = content
    found = Compiled(
        wanted=wanted,
        reason=None if lanes else "it is not faster",
        lanes=lanes,
        guards=agreed.guards,
        sorted_by=sorted_by if "bulk" in lanes else [],
        rows=agreed.rows,
        probes=agreed.probes,
        flips=agreed.flips,
        max_difference=agreed.max_difference,
        seconds=seconds,
    )
    return found, compiled


def _seconds(examined: Examined, compiled: Runtime, lane: Lane) -> Seconds:
    sklearn, onnx = examined.seconds(lane, examined.original, compiled)
    return Seconds(rows=examined.rows(lane), sklearn=sklearn, onnx=onnx)
