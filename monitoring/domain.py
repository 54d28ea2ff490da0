"""The domain classifier: can a model tell the rows of a window from those of the reference?

Columns may each look as ever and still no longer go together. A gradient boosting is trained to tell scored rows from
reference rows, on a bounded sample of both; its cross-validated ROC AUC is 0.5 when they are alike (Rabanser, Günnemann
and Lipton, 2019, "Failing Loudly", compare such classifiers with tests of each column). Needs scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sqlalchemy import Engine

from db import audits, samples
from db.engine import transaction
from db.models import Version
from monitoring.values import numbers
from records.payload import unpack
from registry.parse import parse_chunk
from registry.reference import parse_reference, read_reference
from registry.signature import ColumnType, Signature
from registry.store import ArtefactStore

WARN, CRITICAL = 0.55, 0.65
ROWS = 10_000
FEWEST_ROWS = 500
_FOLDS = 3
_SEED = 2013
_MAX_CHUNK_BYTES = 1 << 30
_MAX_CELL_CHARS = 10_000_000  # what is stored was accepted before
_SHOWN_COLUMNS = 5
_MAX_CODES = 200  # scikit-learn takes 255 categories


@dataclass(frozen=True)
class Result:
    """The one result of this audit, shaped like those of the drift audit."""

    name: str
    type: str
    statistic: str
    value: float | None
    warn: float
    critical: float
    p_value: float | None
    significant: bool
    status: str
    details: dict[str, Any]


def classify(
    engine: Engine, store: ArtefactStore, cache: Path, version: Version, *, start: datetime, end: datetime
) -> tuple[dict[str, Any], list[Result]]:
    """The document and the result of a version's window."""
    signature = Signature.model_validate(version.signature)
    current = _scored_rows(engine, version, signature, start, end)
    reference = parse_reference(read_reference(store.fetch(version.reference_digest, cache)), signature).features
    rows = min(len(current), len(reference))
    value: float | None = None
    details: dict[str, Any] = {}
    status = "insufficient_data"
    if rows >= FEWEST_ROWS:
        value, details = separability(_sampled(reference, ROWS), _sampled(current, ROWS), signature)
        status = "critical" if value >= CRITICAL else "warn" if value >= WARN else "ok"
    # As the alerts count it, nothing is 0: how far the AUC is above a coin's.
    above = None if value is None else max(value - 0.5, 0.0)
    result = Result(
        name="",
        type="dataset",
        statistic="domain_auc",
        value=above,
        warn=WARN - 0.5,
        critical=CRITICAL - 0.5,
        p_value=None,
        significant=status in {"warn", "critical"},
        status=status,
        details={"auc": value, **details},
    )
    document = {"rows": len(current), "status": status, "audited_at": _now(engine), "columns": [vars(result)]}
    return document, [result]


def separability(reference: pa.Table, current: pa.Table, signature: Signature) -> tuple[float, dict[str, Any]]:
    """The cross-validated ROC AUC of telling the rows of two tables apart; where that is high, by which columns."""
    together = pa.concat_tables([reference, current], promote_options="permissive")
    inputs, categorical = _inputs(together, signature)
    truth = np.repeat([0, 1], [len(reference), len(current)])
    model = HistGradientBoostingClassifier(
        max_iter=60, categorical_features=categorical, early_stopping=False, random_state=_SEED
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    scores = cross_val_predict(model, inputs, truth, cv=folds, method="predict_proba")[:, 1]
    value = float(roc_auc_score(truth, scores))
    if value < WARN:
        return value, {}
    weight = permutation_importance(
        model.fit(inputs, truth), inputs, truth, scoring="roc_auc", n_repeats=1, random_state=_SEED
    ).importances_mean
    order = np.argsort(-weight)[:_SHOWN_COLUMNS]
    return value, {"columns": {signature.names[place]: round(float(weight[place]), 4) for place in order}}


def _inputs(table: pa.Table, signature: Signature) -> tuple[npt.NDArray[np.float64], list[int]]:
    """(n, columns) floats, and which columns are codes of words (those with at most 200 different ones).

    A null is a number below all others and not NaN, because scikit-learn's bins need a number in each fold. Of a timestamp
    only that it is there, for by the time itself every row could be told.
    """
    arrays, categorical = [], []
    for place, column in enumerate(signature.columns):
        values = table.column(column.name).combine_chunks()
        found = _found(values, column.type)
        if column.type in ("category", "boolean") and found.max(initial=0) <= _MAX_CODES:
            categorical.append(place)
        cells = np.full(len(values), found.min() - 1.0 if len(found) else 0.0)
        cells[values.is_valid().to_numpy(zero_copy_only=False)] = found
        arrays.append(cells)
    return np.column_stack(arrays), categorical


def _found(values: pa.Array, type: ColumnType) -> npt.NDArray[Any]:
    """A number for each cell that is not null."""
    if type in ("category", "boolean"):
        return _codes(values)
    return np.ones(len(values) - values.null_count) if type == "timestamp" else numbers(values)


def _codes(values: pa.Array) -> npt.NDArray[np.int64]:
    """Of each cell that is not null the place of its word, from 1.

    They are places in the alphabet: in order of appearance, the codes would tell which rows came first.
    """
    encoded = values.cast(pa.string()).dictionary_encode()
    place = 1 + np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), object)))
    codes: npt.NDArray[np.int64] = place[encoded.indices.drop_null().to_numpy()]
    return codes


def _scored_rows(engine: Engine, version: Version, signature: Signature, start: datetime, end: datetime) -> pa.Table:
    """A sample of the inputs of a window, from chunks chosen at random until there are enough rows."""
    tables: list[pa.Table] = []
    found = 0
    with transaction(engine) as connection:
        chosen = samples.chunks_between(connection, version.id, start, end, rows=ROWS, seed=_SEED)
    for item in chosen:
        data = unpack(bytes(item.payload), _MAX_CHUNK_BYTES)
        parsed = parse_chunk(
            data,
            format=item.format,
            columns=list(item.columns),
            delimiter=item.delimiter,
            signature=signature,
            max_cell_chars=_MAX_CELL_CHARS,
        )
        tables.append(parsed.features)
        found += parsed.features.num_rows
        if found >= 2 * ROWS:
            break
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def _sampled(table: pa.Table, rows: int) -> pa.Table:
    if len(table) <= rows:
        return table
    return table.take(np.sort(np.random.default_rng(_SEED).choice(len(table), rows, replace=False)))


def _now(engine: Engine) -> str:
    with transaction(engine) as connection:
        return audits.now(connection).isoformat().replace("+00:00", "Z")
