"""Forms of a model that are allowed to be off by a little: tried one after the other, and the fastest is kept.

Of a neural network of scikit-learn one has its layers in single precision, another one in integers of 8 bits; of an ONNX
model there is the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from errors import ArtefactRefused
from registry.compiled.compile import NotCompilable, compile_model, parts
from registry.compiled.examined import ROWS, Examined, worth
from registry.compiled.heads import has_layers
from registry.compiled.quantise import quantise
from registry.compiled.record import Against, Compiled, Form, Lane, Precision, Quantised, Tried
from registry.deviation import Deviation, permitted
from registry.golden import golden_deviation, score_golden
from registry.row_text import storable
from registry.scores import Runtime
from registry.sklearn_runtime import SklearnRuntime

Kept = tuple[bytes, Runtime]


def quantised(
    examined: Examined, compiled: Compiled, within: float, otherwise: Mapping[Lane, Runtime]
) -> tuple[Quantised, Kept | None]:
    """What came of it, and the form that is kept: content and runtime.

    Args:
        compiled: what is known of the compiled form, whose guards hold for these as well.
        otherwise: what would score each lane.
    """
    signature = examined.signature
    regression = signature.output is not None and signature.output.kind == "regression"
    allowed = permitted(within, examined.scores, regression=regression)
    rows = len(examined.scores.prediction)
    found = Quantised(within=within, permitted=allowed, rows=rows)
    if isinstance(examined.original, SklearnRuntime) and compiled.rows is None:
        return found.model_copy(update={"reason": compiled.reason}), None
    tried: dict[Precision, Tried] = {}
    best: Precision | None = None
    kept: Kept | None = None
    for precision, make in _makers(examined).items():
        try:
            content = make()
            runtime = examined.opened(Form("quantised"), content, compiled)
            each = _tried(examined, runtime, otherwise, found)
        except (NotCompilable, ArtefactRefused) as exc:
            tried[precision] = Tried(reason=storable(str(exc)))
            continue
        except Exception as exc:  # quantising, loading and running may each raise anything
            tried[precision] = Tried(reason=storable(f"it cannot be run ({type(exc).__name__}: {exc})"))
            continue
        tried[precision] = each
        if each.reason is None and (best is None or worth(_bulk(each), _bulk(tried[best]))):
            best, kept = precision, (content, runtime)
    if best is None:
        reason = "; ".join(f"{precision}: {each.reason}" for precision, each in tried.items())
        return found.model_copy(update={"reason": reason, "tried": tried}), None
    lanes = [lane for lane, each in tried[best].seconds.items() if worth(each.this, each.otherwise)]
    return found.model_copy(update={"precision": best, "lanes": lanes, "tried": tried}), kept


def _makers(examined: Examined) -> dict[Precision, Callable[[], bytes]]:
    original, artefact = examined.original, examined.artefact
    if isinstance(original, SklearnRuntime):
        estimator = parts(original)[1]

        def layers() -> bytes:
            return compile_model(original, examined.signature, single=True)

        def single() -> bytes:
            if not has_layers(estimator):
                raise NotCompilable("it is no neural network")
            return layers()

        return {"single": single, "int8": lambda: quantise(layers())}
    assert artefact is not None, "an ONNX model is examined with its file"
    return {"int8": lambda: quantise(artefact)}


def _tried(examined: Examined, runtime: Runtime, otherwise: Mapping[Lane, Runtime], stated: Quantised) -> Tried:
    """Raises ArtefactRefused: a golden row cannot be scored."""
    whole = examined.deviation(runtime)
    inputs = [row.inputs for row in examined.golden]
    golden = golden_deviation(score_golden(runtime, examined.signature, inputs), examined.golden)
    found = Deviation(max(whole.max_difference, golden.max_difference), whole.flips)
    seconds: dict[Lane, Against] = {}
    for lane in ROWS:
        before, this = examined.seconds(lane, otherwise[lane], runtime)
        seconds[lane] = Against(rows=examined.rows(lane), otherwise=before, this=this)
    return Tried(
        reason=_objection(found, seconds, stated),
        max_difference=found.max_difference,
        flips=found.flips,
        golden_flips=golden.flips,
        seconds=seconds,
    )


def _objection(found: Deviation, seconds: Mapping[Lane, Against], stated: Quantised) -> str | None:
    if not stated.allows(found):
        return (
            f"it differs by up to {found.max_difference:.2g}, and {found.flips} rows of {stated.rows:,} have another class; "
            f"{stated.permitted:.2g} and a share of {stated.within:g} are permitted"
        )
    return None if any(worth(each.this, each.otherwise) for each in seconds.values()) else "it is not faster"


def _bulk(tried: Tried) -> float:
    return tried.seconds["bulk"].this
