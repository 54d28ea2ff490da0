"""One retraining without the queue: a challenger is fitted, and it and the champion answer for the same recent rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from errors import InvalidInput, ScorehouseError
from registry.model_input import to_model_input
from registry.runtime import Runtime, runtime_of
from registry.signature import Signature
from training.comparison import Comparison, compared
from training.evaluation import Evaluation, of_scores
from training.losses import losses
from training.recipe import Context, Progress
from training.rows import Positions, Rows, joined
from training.stored_rows import Stored
from training.target import Target
from training.train import fitted_by

#: Share of the rows that are later than the champion's training which both are judged on; at least so many.
HOLD_OUT = 0.3
FEWEST_HOLD_OUT = 200


class NotEnough(ScorehouseError):
    """There is too little to train on or to judge by; the run is skipped, and the sentence says why."""


@dataclass(frozen=True)
class Material:
    """What a challenger is fitted on and judged by: `rows` of the reference and of what was stored, in this order."""

    rows: Rows
    training: Positions
    hold_out: Positions
    by: Literal["time", "random"]
    document: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of all that was fitted on."""
        fitted = self.rows.take(self.training)
        sink = pa.BufferOutputStream()
        table = fitted.features.append_column("\0label", fitted.labels)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return f"sha256:{hashlib.sha256(sink.getvalue()).hexdigest()}"


@dataclass(frozen=True)
class Contest:
    """The challenger, and how both did."""

    model: Any
    champion: Evaluation
    challenger: Evaluation
    comparison: Comparison
    notes: list[str]
    candidates: list[dict[str, Any]]


def material(
    reference: Rows, stored: Stored, *, trained_through: int | None, champion_since: int, seed: int
) -> Material:
    """Choose what both are judged by: the latest stored rows that the champion cannot have been fitted on.

    Args:
        trained_through: microseconds since 1970 of the last row that the champion was fitted on, where that is known; only
            rows of a later time are held out. Else only rows that were submitted since the champion was registered,
            `champion_since`, are, and none that is in the reference, which it may have been fitted on.

    Raises:
        NotEnough: fewer than 200 such rows, or all with one label.
    """
    times = stored.rows.times
    assert times is not None, "each stored row has a time"
    later = times > trained_through if trained_through is not None else stored.received >= champion_since
    if trained_through is None:
        later &= ~_is_among(stored.rows, reference)
    eligible = np.flatnonzero(later)
    if len(eligible) < FEWEST_HOLD_OUT:
        raise NotEnough(
            f"{len(eligible):,} labelled rows are later than what the champion was trained on; at least {FEWEST_HOLD_OUT} "
            "are needed to compare fairly: feed back more labels"
        )
    held, by = _held(times, eligible, seed)
    if len(set(stored.rows.labels.take(pa.array(held)).to_pylist())) < 2:
        raise NotEnough(f"all {len(held):,} rows to judge by have the same label; nothing can be compared yet")
    # A record counts once, and what both are judged by must not be learned from as a row of the reference.
    reference = reference.take(np.flatnonzero(~_is_among(reference, stored.rows)))
    before = len(reference)
    rest = np.setdiff1d(np.arange(len(stored.rows)), held)
    rows = joined([reference, stored.rows]) if before else stored.rows
    training = np.concatenate([np.arange(before), rest + before])
    last = int(times[rest].max()) if len(rest) else None
    return Material(
        rows,
        training,
        held + before,
        by,
        {
            "rows": {
                "reference": before,
                "stored": len(stored.rows),
                "unknown_labels": stored.unknown,
                "scored_again": stored.repeated,
                "training": len(training),
                "hold_out": len(held),
            },
            "split": {
                "by": by,
                "trained_through": None if last is None else _moment(last),
                "hold_out_from": _moment(int(times[held].min())),
                "hold_out_to": _moment(int(times[held].max())),
            },
        },
    )


def contest(
    champion: Runtime,
    signature: Signature,
    found: Material,
    target: Target,
    *,
    recipe: str | None,
    seed: int,
    progress: Progress,
) -> Contest:
    """Fit a challenger by a recipe, or, without one, the champion's estimator again; judge both on the hold-out.

    Raises:
        InvalidInput: there is no such recipe, or the champion cannot be fitted again.
    """
    fitting, held = found.rows.take(found.training), found.rows.take(found.hold_out)
    context = Context(
        kind=target.kind,
        signature=fitting.signature,
        in_time=found.by == "time",  # the reference first, then what was stored, oldest first
        seed=seed,
        progress=progress,
    )
    if recipe is None:
        inputs, judged = to_model_input(fitting.features, signature), to_model_input(held.features, signature)
        model = _again(champion, inputs, target.values(fitting.labels))
    else:
        judged = held.frame
        model = fitted_by(recipe, fitting, target, context)
    old = of_scores(champion.predict(to_model_input(held.features, signature)), champion.classes, held.labels, target)
    new = of_scores(runtime_of(model).predict(judged), getattr(model, "classes_", None), held.labels, target)
    return Contest(model, old, new, _compared(old, new, held.labels, target), context.notes, context.candidates)


def _again(champion: Runtime, inputs: Any, values: npt.NDArray[Any]) -> Any:
    """The champion's estimator, unfitted, fitted on other rows."""
    # A runtime of another library holds no estimator.
    parts = [getattr(champion, name, None) for name in ("preprocessor", "model")]
    steps = [part for part in parts if part is not None]
    if not steps or not all(hasattr(step, "get_params") and hasattr(step, "fit") for step in steps):
        raise InvalidInput(
            "the champion holds nothing that can be fitted again; name a recipe in the training policy of the model"
        )
    copies = [clone(step) for step in steps]
    model = copies[0] if len(copies) == 1 else Pipeline([("prepare", copies[0]), ("predict", copies[1])])
    with threadpool_limits(1):
        return model.fit(inputs, pd.Series(values))


def _compared(old: Evaluation, new: Evaluation, labels: Any, target: Target) -> Comparison:
    truth = target.values(labels)
    if target.classes is None:
        pair = [losses(truth, each.prediction, None, None) for each in (old, new)]
        return compared(pair[0], pair[1], loss="squared_error")
    classes = np.array(target.classes)
    with_probabilities = old.probabilities is not None and new.probabilities is not None
    pair = [
        losses(truth, each.prediction, each.probabilities if with_probabilities else None, classes)
        for each in (old, new)
    ]
    right = [losses(truth, each.prediction, None, classes) == 0 for each in (old, new)]
    return compared(pair[0], pair[1], loss="log_loss" if with_probabilities else "error", right=(right[0], right[1]))


def _held(times: npt.NDArray[np.int64], eligible: Positions, seed: int) -> tuple[Positions, Literal["time", "random"]]:
    """The latest of the eligible rows; where most of them stand for one moment, some drawn at random."""
    wanted = max(FEWEST_HOLD_OUT, round(len(eligible) * HOLD_OUT))
    boundary = np.sort(times[eligible])[-wanted]
    held = eligible[times[eligible] >= boundary]
    if len(held) <= max(wanted, len(eligible) // 2):
        return held, "time"
    return np.sort(np.random.default_rng(seed).choice(eligible, wanted, replace=False)), "random"


def _is_among(rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
    """(n,) whether a record is one of the others too."""
    known = set(_identities(others))
    return np.fromiter((identity in known for identity in _identities(rows)), bool, len(rows))


def _identities(rows: Rows) -> Iterator[object]:
    """What tells records apart: the key, and without one all of their cells."""
    keys = [None] * len(rows) if rows.keys is None else rows.keys.to_pylist()
    cells = zip(*(rows.features.column(name).to_pylist() for name in rows.signature.names), strict=True)
    return (key or row for key, row in zip(keys, cells, strict=True))


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat().replace("+00:00", "Z")
