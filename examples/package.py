"""What every example hands to `scorehouse models register`: fitted pipelines, a reference and the figures of a hold-out.

The pipelines hold scikit-learn's own classes only, so that a worker loads them without any code of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import joblib
import pandas as pd
import skops.io
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits

SEED = 20130401


@dataclass(frozen=True)
class Columns:
    """The columns of a data set by the part they play."""

    key: str
    categories: Sequence[str]
    numbers: Sequence[str]
    label: str

    @property
    def features(self) -> list[str]:
        return [*self.categories, *self.numbers]


def gradient_boosting(columns: Columns) -> Pipeline:
    """Unfitted. A category that was never seen counts as missing, and the trees take missing values as they are."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    encoded = ColumnTransformer(
        [("categories", encoder, list(columns.categories)), ("numbers", "passthrough", list(columns.numbers))],
        verbose_feature_names_out=False,
    )
    trees = HistGradientBoostingClassifier(
        max_iter=120, categorical_features=list(range(len(columns.categories))), random_state=SEED
    )
    return Pipeline([("encode", encoded), ("classify", trees)])


def logistic(columns: Columns) -> Pipeline:
    """Unfitted. A category that was never seen is all zeros; a missing number is the median."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoded = ColumnTransformer(
        [("categories", categories, list(columns.categories)), ("numbers", numbers, list(columns.numbers))],
        verbose_feature_names_out=False,
    )
    return Pipeline([("encode", encoded), ("classify", LogisticRegression(max_iter=1000))])


def hold_out_metrics(pipeline: Pipeline, rows: pd.DataFrame, columns: Columns, share: float = 0.2) -> dict[str, float]:
    """Fit a copy on the first rows and judge it on the last `share` of them, in the order given.

    Args:
        rows: labelled rows in the order of time, so that the future is judged by the past.

    Returns:
        `accuracy`, `roc_auc`, `log_loss`, `brier`, `positive_rate` (of the hold-out) and `rows` (in it).
    """
    cut = int(len(rows) * (1 - share))
    past, future = rows.iloc[:cut], rows.iloc[cut:]
    fitted = clone(pipeline).fit(past[columns.features], past[columns.label].astype(int))
    truth = future[columns.label].astype(int)
    probability = fitted.predict_proba(future[columns.features])[:, 1]
    return {
        "accuracy": float(accuracy_score(truth, probability > 0.5)),
        "roc_auc": float(roc_auc_score(truth, probability)),
        "log_loss": float(log_loss(truth, probability)),
        "brier": float(brier_score_loss(truth, probability)),
        "positive_rate": float(truth.mean()),
        "rows": len(future),
    }


def one_thread() -> AbstractContextManager[object]:
    """For fitting and predicting on data as small as the examples'.

    More threads would wait for each other longer than they work, and on a busy machine many times as long. It also
    makes the fitted model the same, to the byte, whatever the number of cores.
    """
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def write_artefacts(pipeline: Pipeline, out: Path, name: str) -> None:
    """Write the fitted pipeline twice: NAME.joblib, and NAME.skops, which loads without running code."""
    joblib.dump(pipeline, out / f"{name}.joblib")
    skops.io.dump(pipeline, out / f"{name}.skops")


def write_reference(rows: pd.DataFrame, out: Path, columns: Columns, size: int = 5000) -> None:
    """Write reference.csv: `size` labelled rows, sampled, in their order.

    The rare rows with the most missing values come first, because a column that may be empty must be empty in the
    reference too: that is where the signature learns it.
    """
    incomplete = [rows.index[rows[name].isna()][:3] for name in columns.features if rows[name].isna().any()]
    must = pd.Index([]).append(incomplete).unique() if incomplete else pd.Index([])
    rest = rows.drop(must).sample(size - len(must), random_state=SEED)
    sample = rows.loc[must.append(rest.index)].sort_index()
    sample[[columns.key, *columns.features, columns.label]].to_csv(out / "reference.csv", index=False)


def write_metrics(metrics: Mapping[str, Mapping[str, float]], out: Path) -> None:
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
