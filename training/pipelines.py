"""Unfitted pipelines for any table of numbers and words, of scikit-learn's own classes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from registry.signature import Signature

#: Text is as good as a category when each of its words comes so often, on average.
_ROWS_PER_WORD = 20
#: scikit-learn's trees take 255 categories; the rarest share the last one.
_MOST_WORDS = 250
_MOST_ONE_HOT = 50
#: A column with fewer values may have none in some fold.
_FEWEST_VALUES = 20


@dataclass(frozen=True)
class Columns:
    """The columns by the part they play; `unused` are texts without repetition, dates, and what is nearly empty."""

    numbers: list[str]
    words: list[str]
    unused: list[str]

    @property
    def used(self) -> list[str]:
        return [*self.words, *self.numbers]


def columns_of(signature: Signature, frame: pd.DataFrame) -> Columns:
    """Sort the columns by their type, and texts by whether their words repeat."""
    numbers: list[str] = []
    words: list[str] = []
    unused: list[str] = []
    for column in signature.columns:
        values = frame[column.name]
        if values.notna().sum() < min(_FEWEST_VALUES, len(frame)) or column.type == "timestamp":
            unused.append(column.name)
        elif column.type in ("number", "integer"):
            numbers.append(column.name)
        elif column.type == "text" and values.nunique() * _ROWS_PER_WORD > len(frame):
            unused.append(column.name)
        else:
            words.append(column.name)
    return Columns(numbers, words, unused)


def linear(columns: Columns, kind: Literal["classification", "regression"]) -> Pipeline:
    """Logistic regression or ridge: words one by one, numbers scaled, a missing number is the median and says so."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    words = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_ONE_HOT)
    encoded = ColumnTransformer(
        [("words", words, columns.words), ("numbers", numbers, columns.numbers)], verbose_feature_names_out=False
    )
    final: Any = LogisticRegression(max_iter=1000) if kind == "classification" else Ridge()
    return Pipeline([("encode", encoded), ("predict", final)])


def gradient_boosting(
    columns: Columns, kind: Literal["classification", "regression"], seed: int, **options: Any
) -> Pipeline:
    """Trees: a word that was never seen counts as missing, and missing values are taken as they are."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"), max_categories=_MOST_WORDS)
    encoded = ColumnTransformer(
        [("words", encoder, columns.words), ("numbers", "passthrough", columns.numbers)],
        verbose_feature_names_out=False,
    )
    trees = HistGradientBoostingClassifier if kind == "classification" else HistGradientBoostingRegressor
    # Trees stop when a tenth of the rows, kept aside, no longer gains: also of few rows, which they would learn by heart.
    options = {"early_stopping": True, "max_iter": 300, "random_state": seed, **options}
    categorical = list(range(len(columns.words)))
    return Pipeline([("encode", encoded), ("predict", trees(categorical_features=categorical, **options))])
