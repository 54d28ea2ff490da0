"""Training from a file: read, split, fit by a recipe, judge on the hold-out, and write what registration needs."""

from __future__ import annotations

import importlib.metadata
import platform
import time as clock
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from errors import InvalidInput
from training import recipe as recipes
from training.artefact import Artefact, write_artefact
from training.card import Card
from training.dataset import Dataset, read_labelled
from training.evaluation import evaluated
from training.recipe import Context, Progress
from training.reference_sample import write_reference
from training.rows import Rows
from training.split import Split, split
from training.target import Kind, Target, target_of

SEED = 20130401
MAX_ROWS = 1_000_000
HOLD_OUT = 0.2
_LIBRARIES = ("scikit-learn", "numpy", "pandas", "scipy")


@dataclass(frozen=True)
class Order:
    """What is to be trained: options of `scorehouse train`."""

    model: str
    data: Path
    target: str
    key: str | None = None
    time: str | None = None
    at_random: bool = False
    kind: Kind | None = None
    recipe: str = recipes.DEFAULT
    delimiter: str = ","
    hold_out: float = HOLD_OUT
    max_rows: int = MAX_ROWS
    seed: int = SEED


@dataclass(frozen=True)
class Trained:
    """A fitted model with its files and its card."""

    model: Any
    artefact: Artefact
    reference: Path
    card: Card

    @property
    def lineage(self) -> dict[str, Any]:
        """What the registry keeps of where the version comes from."""
        return self.card.lineage()


def train(order: Order, out: Path, progress: Progress = lambda *_: None) -> Trained:
    """Train and write `model.skops` (or `.joblib`), `reference.csv`, `card.md` and `card.json` into `out`.

    Raises:
        InvalidInput: the file, the target or the recipe cannot be used; says why and what to do.
    """
    began = clock.monotonic()
    dataset = read_labelled(
        order.data,
        target=order.target,
        key=order.key,
        time=order.time,
        find_time=not order.at_random,
        delimiter=order.delimiter,
        max_rows=order.max_rows,
        seed=order.seed,
        tell=lambda rows, of: progress("reading", rows, of),
    )
    target = target_of(order.target, dataset.rows.labels, order.kind)
    parts = _split(order, dataset, target)
    context = Context(
        kind=target.kind,
        signature=dataset.rows.signature,
        in_time=parts.by == "time",
        seed=order.seed,
        progress=progress,
    )
    fitting = dataset.rows.take(parts.training)
    model = fitted_by(order.recipe, fitting, target, context)
    rows = as_fitted(model, dataset.rows)
    progress("judging", 0, 1)
    judged = rows.take(parts.hold_out)
    with threadpool_limits(1):  # of many threads each would wait for the others
        evaluation = evaluated(model, judged.frame, judged.labels, target)
    progress("judging", 1, 1)
    out.mkdir(parents=True, exist_ok=True)
    artefact = write_artefact(model, out)
    reference = out / "reference.csv"
    size = write_reference(rows, parts.hold_out, reference, seed=order.seed)
    card = Card(
        model=order.model,
        trained_at=datetime.now(UTC),
        estimator=_described(model),
        target=target,
        columns=rows.signature.columns,
        rows={
            "read": dataset.read,
            "sampled": dataset.sampled,
            "labelled": len(rows),
            "training": len(parts.training),
            "hold_out": len(parts.hold_out),
            "reference": size,
        },
        split=_split_document(parts, dataset),
        recipe=order.recipe,
        seed=order.seed,
        candidates=context.candidates,
        metrics=evaluation.metrics,
        notes=[*dataset.notes, *context.notes],
        libraries=libraries(),
        data_digest=digest_of(order.data),
        seconds=clock.monotonic() - began,
    )
    card.write(out)
    return Trained(model, artefact, reference, card)


def fitted_by(name: str, rows: Rows, target: Target, context: Context) -> Any:
    """The estimator that a recipe fits.

    Raises:
        InvalidInput: there is no such recipe, or it gives something that cannot predict.
    """
    recipe = recipes.recipe_of(name)
    model = recipe(rows.frame, pd.Series(target.values(rows.labels), name=target.name), context)
    if not callable(getattr(model, "predict", None)):
        raise InvalidInput(
            f"the recipe '{name}' returned a {type(model).__name__} without `predict`; let it return the fitted estimator"
        )
    return model


def as_fitted(model: Any, rows: Rows) -> Rows:
    """The rows with the columns that the model was fitted on, in its order."""
    names = getattr(model, "feature_names_in_", None)
    return rows if names is None else rows.select([str(name) for name in names])


def libraries() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}


def digest_of(path: Path) -> str:
    import hashlib  # noqa: PLC0415  # only for this

    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _split(order: Order, dataset: Dataset, target: Target) -> Split:
    return split(
        target.values(dataset.rows.labels),
        None if order.at_random else dataset.rows.times,
        share=order.hold_out,
        seed=order.seed,
        stratified=target.kind == "classification",
    )


def _split_document(parts: Split, dataset: Dataset) -> dict[str, Any]:
    """How the hold-out was chosen; `trained_through` is the time of the last row that was fitted on."""
    if parts.by == "random" or dataset.rows.times is None or parts.boundary is None:
        return {"by": "random"}
    times = dataset.rows.times
    return {
        "by": "time",
        "column": dataset.time,
        "trained_through": _moment(int(times[parts.training].max())),
        "hold_out_from": _moment(parts.boundary),
        "hold_out_to": _moment(int(times[parts.hold_out].max())),
    }


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat().replace("+00:00", "Z")


def _described(model: Any) -> str:
    """`CalibratedClassifierCV`, or the steps of a pipeline."""
    steps = getattr(model, "steps", None)
    return type(model).__name__ if steps is None else " → ".join(type(step).__name__ for _, step in steps)
