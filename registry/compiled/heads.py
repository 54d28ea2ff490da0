"""The estimators that can be written as ONNX in double precision, and how: from features (n, m) to probabilities (n, k) or
to the value (n, 1) of a regression.

The formulas were read in scikit-learn 1.9, and each compiled model is compared with its original before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from registry.compiled.graph import Graph
from registry.compiled.trees import add_trees, boosted, grown

Head = Callable[[Graph, str, Any], str]


def head_of(estimator: Any) -> Head | None:
    """How to write this estimator; None when that is not known. A subclass may differ, so its type must be exact."""
    kind = type(estimator)
    return _HEADS.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None


def has_layers(estimator: Any) -> bool:
    """Whether there is something in it that may be in single precision."""
    return head_of(estimator) is _network


def _linear(graph: Graph, features: str, estimator: Any) -> str:
    """X w + b, (n, 1) or (n, classes)."""
    weights = np.atleast_2d(np.asarray(estimator.coef_, np.float64)).T
    bias = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), weights.shape[1]).reshape(1, -1)
    return graph.add("Add", graph.add("MatMul", features, graph.constant(weights)), graph.constant(bias.copy()))


def _logistic(graph: Graph, features: str, estimator: Any) -> str:
    return _probabilities(graph, _linear(graph, features, estimator), len(estimator.classes_))


def _probabilities(graph: Graph, raw: str, classes: int) -> str:
    if classes > 2:
        return graph.add("Softmax", raw, axis=1)
    return graph.both_classes(graph.add("Sigmoid", raw))


def _forest(graph: Graph, features: str, estimator: Any) -> str:
    trees = [each.tree_ for each in getattr(estimator, "estimators_", None) or [estimator]]
    features = graph.in_single_precision(features)
    if not hasattr(estimator, "classes_"):
        found = [(0, grown(tree, tree.value[:, 0, 0] / len(trees))) for tree in trees]
        return add_trees(graph, features, found, 1)
    classes = len(estimator.classes_)
    if classes == 2:
        found = [(0, grown(tree, tree.value[:, 0, 1] / len(trees))) for tree in trees]
        return graph.both_classes(add_trees(graph, features, found, 1))
    # A leaf adds to one target: a copy of each tree for each class.
    found = [(k, grown(tree, tree.value[:, 0, k] / len(trees))) for tree in trees for k in range(classes)]
    return add_trees(graph, features, found, classes)


def _histogram_boosting(graph: Graph, features: str, estimator: Any) -> str:
    baseline = np.asarray(estimator._baseline_prediction, np.float64).reshape(1, -1)
    sums = add_trees(graph, features, list(boosted(estimator)), baseline.shape[1])
    raw = graph.add("Add", sums, graph.constant(baseline))
    if hasattr(estimator, "classes_"):
        return _probabilities(graph, raw, len(estimator.classes_))
    return graph.add("Exp", raw) if estimator.loss in ("poisson", "gamma") else raw


#: By the names that scikit-learn gives them.
_ACTIVATIONS = {"logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "exp": "Exp", "softmax": "Softmax"}


def _network(graph: Graph, features: str, estimator: Any) -> str:
    """Layers a(X W + b), each on the one before."""
    values = graph.cast(features, TensorProto.FLOAT) if graph.single else features
    hidden = [estimator.activation] * (len(estimator.coefs_) - 1)
    for weights, bias, activation in zip(estimator.coefs_, estimator.intercepts_, [*hidden, None], strict=True):
        kind = np.float32 if graph.single else np.float64
        product = graph.add("MatMul", values, graph.constant(np.asarray(weights, kind)))
        values = graph.add("Add", product, graph.constant(np.asarray(bias, kind).reshape(1, -1)))
        values = _activated(graph, values, activation)
    raw = graph.cast(values, TensorProto.DOUBLE) if graph.single else values
    answer = _activated(graph, raw, estimator.out_activation_)
    return graph.both_classes(answer) if estimator.out_activation_ == "logistic" else answer


def _activated(graph: Graph, values: str, activation: str | None) -> str:
    if activation in (None, "identity"):
        return values
    return graph.add(_ACTIVATIONS[activation], values)  # the axis of Softmax is the last one


_LINEAR = (
    *("ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso"),
    *("LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "OrthogonalMatchingPursuit"),
    *("QuantileRegressor", "Ridge", "RidgeCV", "SGDRegressor", "TheilSenRegressor"),
)
_HEADS: dict[str, Head] = {
    **dict.fromkeys(_LINEAR, _linear),
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _logistic),
    **dict.fromkeys(("DecisionTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier"), _forest),
    **dict.fromkeys(("DecisionTreeRegressor", "RandomForestRegressor", "ExtraTreesRegressor"), _forest),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _histogram_boosting),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), _network),
}
