"""Ensembles of trees as one `TreeEnsemble` of ONNX (ai.onnx.ml 5), with thresholds and leaves in double precision.

Converters in use write them in single precision, which moves a row to the other side of a threshold now and then. Here the
comparisons are the very ones of scikit-learn; only the sum over the trees may round differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from registry.compiled.graph import ML, Graph

_LESS_OR_EQUAL, _MEMBER = 0, 6
_SUM = 1


@dataclass(frozen=True)
class Tree:
    """Binary tree of n nodes, the root first: a row goes left where its feature is at most the threshold.

    `left` and `right` are numbers of nodes; `value` (n,) counts at leaves. `members` holds, by node, the values of a
    categorical feature that go left; any other goes right. `missing_left` says where NaN goes.
    """

    feature: npt.NDArray[Any]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    is_leaf: npt.NDArray[np.bool_]
    missing_left: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    members: dict[int, Sequence[float]] = field(default_factory=dict)


#: An operator takes one row after the other through all of its trees: of more nodes, each row would fetch them anew from
#: beyond the processor's nearest caches.
MOST_NODES = 2_000


def add_trees(graph: Graph, features: str, trees: Sequence[tuple[int, Tree]], targets: int) -> str:
    """The sums (n, targets) of the leaves that rows reach; `trees` with the target that each of them adds to."""
    sums = [_add(graph, features, group, targets) for group in _groups(trees)]
    return sums[0] if len(sums) == 1 else graph.add("Sum", *sums)


def _groups(trees: Sequence[tuple[int, Tree]]) -> Iterator[list[tuple[int, Tree]]]:
    """Of at most `MOST_NODES` inner nodes, or of one tree."""
    group: list[tuple[int, Tree]] = []
    size = 0
    for target, tree in trees:
        nodes = int((~tree.is_leaf).sum())
        if group and size + nodes > MOST_NODES:
            yield group
            group, size = [], 0
        group.append((target, tree))
        size += nodes
    yield group


def _add(graph: Graph, features: str, trees: Sequence[tuple[int, Tree]], targets: int) -> str:
    nodes = _Nodes()
    for target, tree in trees:
        nodes.append(target, tree)
    return graph.add(
        "TreeEnsemble",
        features,
        domain=ML,
        n_targets=targets,
        aggregate_function=_SUM,
        post_transform=0,
        **nodes.attributes(),
    )


class _Nodes:
    """Inner nodes and leaves are numbered apart, each across all trees."""

    def __init__(self) -> None:
        self._roots: list[int] = []
        self._inner: dict[str, list[npt.NDArray[Any]]] = {}
        self._members: list[Sequence[float]] = []
        self._leaf_targets: list[npt.NDArray[np.int64]] = []
        self._leaf_values: list[npt.NDArray[np.float64]] = []
        self._inner_count = self._leaf_count = 0

    def append(self, target: int, tree: Tree) -> None:
        if tree.is_leaf[0]:
            tree = _with_a_split(float(tree.value[0]))
        inner, leaves = np.flatnonzero(~tree.is_leaf), np.flatnonzero(tree.is_leaf)
        place = np.empty(len(tree.is_leaf), np.int64)
        place[inner] = self._inner_count + np.arange(len(inner))
        place[leaves] = self._leaf_count + np.arange(len(leaves))
        modes = np.full(len(tree.is_leaf), _LESS_OR_EQUAL, np.uint8)
        modes[list(tree.members)] = _MEMBER
        self._roots.append(int(place[0]))
        left, right = tree.left[inner], tree.right[inner]
        for name, values in (
            ("nodes_featureids", tree.feature[inner]),
            ("nodes_modes", modes[inner]),
            ("nodes_splits", tree.threshold[inner]),
            ("nodes_truenodeids", place[left]),
            ("nodes_trueleafs", tree.is_leaf[left]),
            ("nodes_falsenodeids", place[right]),
            ("nodes_falseleafs", tree.is_leaf[right]),
            ("nodes_missing_value_tracks_true", tree.missing_left[inner]),
        ):
            self._inner.setdefault(name, []).append(values)
        self._members += [tree.members[node] for node in inner.tolist() if node in tree.members]
        self._leaf_targets.append(np.full(len(leaves), target))
        self._leaf_values.append(tree.value[leaves])
        self._inner_count += len(inner)
        self._leaf_count += len(leaves)

    def attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: np.concatenate(values) for name, values in self._inner.items()}
        modes, splits = found.pop("nodes_modes"), found.pop("nodes_splits")
        more = {name: values.astype(np.int64).tolist() for name, values in found.items()}
        if self._members:
            # Each set ends with a NaN.
            sets = [value for members in self._members for value in (*members, np.nan)]
            more["membership_values"] = numpy_helper.from_array(np.array(sets, np.float64))
        return {
            "tree_roots": self._roots,
            "nodes_modes": numpy_helper.from_array(modes),
            "nodes_splits": numpy_helper.from_array(splits.astype(np.float64)),
            "leaf_targetids": np.concatenate(self._leaf_targets).tolist(),
            "leaf_weights": numpy_helper.from_array(np.concatenate(self._leaf_values).astype(np.float64)),
            **more,
        }


def _with_a_split(value: float) -> Tree:
    """A tree of one leaf, as one whose two leaves are alike: the operator wants a split."""
    return Tree(
        feature=np.zeros(3, np.int64),
        threshold=np.zeros(3),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        is_leaf=np.array([False, True, True]),
        missing_left=np.zeros(3, bool),
        value=np.array([0.0, value, value]),
    )


def grown(tree: Any, values: npt.NDArray[np.float64]) -> Tree:
    """A `sklearn.tree._tree.Tree` with the values (n,) of its nodes."""
    return Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        is_leaf=tree.children_left < 0,
        missing_left=tree.missing_go_to_left.astype(bool),
        value=values,
    )


def boosted(estimator: Any) -> Iterator[tuple[int, Tree]]:
    """The trees of a HistGradientBoosting estimator, on its columns as they come in, with the class of each."""
    columns = Columns(estimator)
    for predictors in estimator._predictors:
        for target, predictor in enumerate(predictors):
            yield target, _histogram_tree(predictor, columns)


class Columns:
    """Where the columns of a HistGradientBoosting's trees come from: it puts the encoded ones first."""

    def __init__(self, estimator: Any) -> None:
        preprocessor = estimator._preprocessor
        self.source = np.arange(estimator.n_features_in_)
        self.values: dict[int, npt.NDArray[np.float64]] = {}
        if preprocessor is None:
            return
        encoded = np.flatnonzero(estimator.is_categorical_)
        self.source = np.concatenate([encoded, np.flatnonzero(~estimator.is_categorical_)])
        for place, categories in enumerate(preprocessor.named_transformers_["encoder"].categories_):
            self.values[place] = np.asarray(categories, dtype=np.float64)  # numbers, else ValueError


def _histogram_tree(predictor: Any, columns: Columns) -> Tree:
    nodes = predictor.nodes
    missing_left = nodes["missing_go_to_left"].astype(bool)
    left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    members: dict[int, Sequence[float]] = {}
    for node in np.flatnonzero((nodes["is_categorical"] == 1) & (nodes["is_leaf"] == 0)).tolist():
        values = columns.values[int(nodes["feature_idx"][node])]
        bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        goes_left = np.unpackbits(bits.astype("<u4").view(np.uint8), bitorder="little")[: len(values)].astype(bool)
        known = ~np.isnan(values)
        # What is not known goes where NaN does, and the operator sends to the right what is no member.
        if missing_left[node]:
            members[node] = values[~goes_left & known].tolist()
            left[node], right[node] = right[node], left[node]
            missing_left[node] = False
        else:
            members[node] = values[goes_left & known].tolist()
    return Tree(
        feature=columns.source[nodes["feature_idx"].astype(np.int64)],
        threshold=nodes["num_threshold"],
        left=left,
        right=right,
        is_leaf=nodes["is_leaf"].astype(bool),
        missing_left=missing_left,
        value=nodes["value"],
        members=members,
    )
