"""A model whose answer anybody can check: `amount` plus `visits`, where a missing one is 0.

It stands alone in its folder, so that nothing else of the tests comes within reach of whoever loads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

COLUMNS = ("amount", "visits", "segment", "active", "note", "seen")


class Adding(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A regressor that takes a column of each type."""

    def fit(self, rows: Any, truth: Any) -> Adding:
        del rows, truth
        self.feature_names_in_ = np.array(COLUMNS, dtype=object)
        self.n_features_in_ = len(COLUMNS)
        return self

    def predict(self, rows: Any) -> Any:
        amount, visits = (rows[name].to_numpy(dtype=float, na_value=0.0) for name in ("amount", "visits"))
        return np.nan_to_num(amount) + np.nan_to_num(visits)
