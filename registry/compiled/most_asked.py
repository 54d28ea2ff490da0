"""Which numbers trees ask most rows for: what rows should be sorted by, if by anything (`registry.compiled.order`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from registry.compiled.compile import parts
from registry.compiled.trees import Columns
from registry.signature import Signature
from registry.sklearn_runtime import SklearnRuntime

_MOST_COLUMNS = 3


def most_asked(runtime: SklearnRuntime, signature: Signature) -> list[str]:
    """The names of such columns, the most asked first; none if there are no trees, or if their features have other names.

    A hint for the order of rows, which changes no answer.
    """
    steps, estimator = parts(runtime)
    features = [column.name for column in signature.columns]
    try:
        if steps:
            pipeline = Pipeline([(str(place), step) for place, step in enumerate(steps)])
            features = pipeline.get_feature_names_out(features).tolist()
    except Exception:  # a transformer of somebody's own need not name what it makes
        return []
    visits = _visits(estimator, len(features))
    parted = {
        column.name: sum(
            visits[place] for place, name in enumerate(features) if name.rpartition("__")[2] == column.name
        )
        for column in signature.columns
        if column.type in ("number", "integer")
    }
    return [name for name in sorted(parted, key=lambda name: -parted[name]) if parted[name]][:_MOST_COLUMNS]


def _visits(estimator: Any, features: int) -> npt.NDArray[np.float64]:
    """(features,) how many rows of the training came to a node that asks for the feature, summed over nodes."""
    found = np.zeros(features)
    if hasattr(estimator, "_predictors"):
        source = Columns(estimator).source
        for predictor in (each for predictors in estimator._predictors for each in predictors):
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            np.add.at(found, source[inner["feature_idx"].astype(np.intp)], inner["count"])
        return found
    for each in getattr(estimator, "estimators_", None) or [estimator]:
        if (tree := getattr(each, "tree_", None)) is not None:
            inner = tree.children_left >= 0
            np.add.at(found, tree.feature[inner], tree.n_node_samples[inner])
    return found
