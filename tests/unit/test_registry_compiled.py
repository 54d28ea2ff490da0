"""Compiled forms answer as their originals do: the same classes, numbers within 1e-10, the same rows refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from errors import ArtefactRefused, InvalidPackage
from registry.compiled import heads
from registry.compiled.graph import Graph
from registry.compiled.most_asked import most_asked
from registry.compiled.order import SORTED_FROM, alike
from registry.compiled.record import Compiled, Form
from registry.compiled.trees import MOST_NODES, Tree, add_trees
from registry.examine import Package, examine
from registry.parse import Parsed, parse_csv
from registry.runtime import load, load_form
from registry.scores import Runtime
from registry.scoring import Scored, score

RNG = np.random.default_rng(11)
WORDS, NUMBERS = ["plan", "region"], ["age", "amount", "ratio"]
CLOSE = 1e-10


def people(rows: int, *, strange: bool = False) -> pd.DataFrame:
    """Rows with nulls in two columns; `strange` ones hold unknown words, infinities' neighbours and far numbers."""
    plans = ["basic", "pro", "nan", "Ünlimited"] + (["never seen"] if strange else [])
    frame = pd.DataFrame(
        {
            "id": np.arange(rows),
            "plan": RNG.choice(plans, rows),
            "region": RNG.choice(np.array(["north", "south", None], dtype=object), rows),
            "age": RNG.integers(18, 90, rows),
            "amount": RNG.normal(100, 30, rows).round(2),
            "ratio": np.where(RNG.random(rows) < 0.1, np.nan, RNG.normal(size=rows)),
        }
    )
    if strange:
        frame.loc[:3, "amount"] = [1e300, -1e39, 1e31, 0.0]
    pull = frame["age"] / 40 + frame["ratio"].fillna(1) + (frame["plan"] == "pro")
    frame["two"] = (pull + RNG.normal(size=rows) > 2.5).astype(int)
    frame["three"] = np.array(["low", "mid", "top"])[np.digitize(pull, [2.0, 3.0])]
    frame["price"] = np.exp(pull / 2) + 0.01
    return frame


TRAINING, FRESH = people(1_200), people(1_000, strange=True)


def one_hot(**options: Any) -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("words", OneHotEncoder(**{"handle_unknown": "ignore", **options}), WORDS),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        ],
        sparse_threshold=0,
    )


def ordinal() -> ColumnTransformer:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    return ColumnTransformer([("words", encoder, WORDS), ("numbers", "passthrough", NUMBERS)])


def boosted(kind: Any, **options: Any) -> Pipeline:
    return make_pipeline(ordinal(), kind(max_iter=12, categorical_features=[0, 1], random_state=0, **options))


def network(kind: Any, **options: Any) -> Pipeline:
    """Ten rounds of training: what is gained less than `tol` by then is as good as converged."""
    return make_pipeline(one_hot(), kind(hidden_layer_sizes=(24, 16), tol=100.0, random_state=0, **options))


@dataclass(frozen=True)
class Version:
    """A registered model: its original and its compiled form."""

    package: Package
    original: Runtime
    compiled: Runtime

    def scored(self, frame: pd.DataFrame) -> tuple[Scored, Scored]:
        parsed = self.parsed(frame)
        signature = self.package.signature
        return score(self.original, parsed, signature), score(self.compiled, parsed, signature)

    def parsed(self, frame: pd.DataFrame) -> Parsed:
        data = frame.to_csv(index=False, header=False).encode()
        return parse_csv(
            data, header=list(frame.columns), delimiter=",", signature=self.package.signature, key_column=None,
            first_row=1, first_line=2, max_cell_chars=1000,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker."""
    with threadpool_limits(1):
        yield


Register = Callable[..., Version]


@pytest.fixture
def register(tmp_path: Path) -> Register:
    def register(model: Any, target: str, frame: pd.DataFrame = TRAINING, wanted: Any = "onnx") -> Version:
        artefact, reference = tmp_path / "model.joblib", tmp_path / "reference.csv"
        joblib.dump(model, artefact)
        frame.to_csv(reference, index=False)
        content = artefact.read_bytes()

        def put(compiled: bytes) -> str:
            (tmp_path / "compiled").write_bytes(compiled)
            return digest_of(compiled)

        package = examine(
            artefact, format="joblib", digest=digest_of(content), reference=reference, key="id", target=target,
            wanted=wanted, put=put,
        )  # fmt: skip
        original = load(artefact, format="joblib", digest=digest_of(content))
        compiled = loaded(tmp_path / "compiled", package, original)
        return Version(package, original, compiled)

    return register


def loaded(path: Path, package: Package, original: Runtime, **changed: Any) -> Runtime:
    compiled = package.compiled.model_copy(update=changed)
    assert compiled.digest is not None
    return load_form(
        path, Form("compiled"), compiled.digest, compiled=compiled, original=original, signature=package.signature
    )


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


KINDS: dict[str, tuple[Any, str]] = {
    "logistic": (make_pipeline(one_hot(), LogisticRegression(max_iter=500)), "two"),
    "logistic of three": (make_pipeline(one_hot(), LogisticRegression(max_iter=500)), "three"),
    "forest": (make_pipeline(one_hot(), RandomForestClassifier(12, random_state=0)), "two"),
    "forest of three": (make_pipeline(one_hot(), RandomForestClassifier(5, random_state=0)), "three"),
    "extra trees": (make_pipeline(one_hot(), ExtraTreesClassifier(5, random_state=0)), "two"),
    "tree": (make_pipeline(one_hot(), DecisionTreeClassifier(max_depth=6, random_state=0)), "three"),
    "stump": (make_pipeline(one_hot(), RandomForestClassifier(2, max_depth=1, random_state=0)), "two"),
    "boosting": (boosted(HistGradientBoostingClassifier), "two"),
    "boosting of three": (boosted(HistGradientBoostingClassifier), "three"),
    "boosted counts": (boosted(HistGradientBoostingRegressor, loss="poisson"), "price"),
    "boosted numbers": (boosted(HistGradientBoostingRegressor), "price"),
    "forest of numbers": (make_pipeline(one_hot(), RandomForestRegressor(10, random_state=0)), "price"),
    "ridge": (make_pipeline(one_hot(), Ridge()), "price"),
    "network": (network(MLPClassifier, activation="relu"), "two"),
    "network of three": (network(MLPClassifier, activation="tanh"), "three"),
    "network of numbers": (network(MLPRegressor, activation="identity"), "price"),
    "network of counts": (network(MLPRegressor, activation="logistic", loss="poisson"), "price"),
    "rare words": (
        make_pipeline(
            one_hot(handle_unknown="infrequent_if_exist", max_categories=3), LogisticRegression(max_iter=500)
        ),
        "two",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_rows_are_answered_alike(kind: str, register: Register) -> None:
    model, target = KINDS[kind]
    model.fit(TRAINING[WORDS + NUMBERS], TRAINING[target])
    version = register(model, target)
    original, compiled = version.scored(FRESH)
    assert [(error.row, error.code) for error in compiled.errors] == [(e.row, e.code) for e in original.errors]
    assert compiled.rows.tolist() == original.rows.tolist()
    if original.probabilities is None:
        np.testing.assert_allclose(compiled.prediction, original.prediction, rtol=CLOSE)
    else:
        assert compiled.prediction.tolist() == original.prediction.tolist()
        assert compiled.probabilities is not None
        assert np.abs(compiled.probabilities - original.probabilities).max() <= CLOSE
    assert version.package.compiled.flips == 0
    assert version.package.compiled.lanes == ["interactive", "bulk"]


@pytest.mark.parametrize("kind", ["forest", "extra trees", "boosting of three", "forest of numbers"])
def test_rows_that_are_sorted_before_get_the_same_answers(kind: str, tmp_path: Path, register: Register) -> None:
    model, target = KINDS[kind]
    version = register(model.fit(TRAINING[WORDS + NUMBERS], TRAINING[target]), target)
    columns = most_asked(version.original, version.package.signature)
    assert sorted(columns) == sorted(NUMBERS)
    many = version.parsed(people(4 * SORTED_FROM, strange=True))
    plain, in_order = (
        score(
            loaded(tmp_path / "compiled", version.package, version.original, sorted_by=sorted_by),
            many,
            version.package.signature,
        )
        for sorted_by in ([], columns)
    )
    assert in_order.prediction.tolist() == plain.prediction.tolist()
    assert in_order.rows.tolist() == plain.rows.tolist()
    if plain.probabilities is not None:
        assert in_order.probabilities is not None
        assert in_order.probabilities.tolist() == plain.probabilities.tolist()


def test_rows_that_are_alike_come_together() -> None:
    few, many = np.repeat([0.0, 1.0], 500), RNG.normal(size=1000)
    order = alike([few[RNG.permutation(1000)], many])
    assert sorted(order) == list(range(1000))
    shuffled = few[RNG.permutation(1000)]
    in_order = shuffled[alike([shuffled, many])]
    assert np.count_nonzero(np.diff(in_order)) == 1


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e300])
def test_any_numbers_can_be_sorted_by(strange: float) -> None:
    some = np.where(RNG.random(50) < 0.5, strange, RNG.normal(size=50))
    assert sorted(alike([some, np.full(50, strange)])) == list(range(50))


def test_an_estimator_without_trees_asks_for_nothing(register: Register) -> None:
    model, target = KINDS["logistic"]
    version = register(model.fit(TRAINING[WORDS + NUMBERS], TRAINING[target]), target)
    assert most_asked(version.original, version.package.signature) == []
    assert version.package.compiled.sorted_by == []


def test_trees_beyond_what_a_cache_holds_are_summed_in_groups(register: Register) -> None:
    model = make_pipeline(one_hot(), RandomForestClassifier(30, random_state=0))
    version = register(model.fit(TRAINING[WORDS + NUMBERS], TRAINING["two"]), "two")
    assert sum(tree.tree_.node_count for tree in model[-1].estimators_) // 2 > MOST_NODES
    original, compiled = version.scored(FRESH)
    assert compiled.prediction.tolist() == original.prediction.tolist()
    assert np.abs(compiled.probabilities - original.probabilities).max() <= CLOSE


def test_an_estimator_on_bare_numbers(register: Register) -> None:
    features, labels = make_classification(500, 6, random_state=0)
    frame = pd.DataFrame(features, columns=list("abcdef")).assign(id=range(500), two=labels)
    version = register(LogisticRegression().fit(features, labels), "two", frame)
    assert version.package.signature.frame == "array"
    original, compiled = version.scored(frame)
    assert compiled.prediction.tolist() == original.prediction.tolist()


def test_a_scaler_of_named_columns_keeps_their_precision(register: Register) -> None:
    frame = TRAINING.assign(ratio=TRAINING["ratio"].fillna(0.0))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[NUMBERS], frame["two"])
    version = register(model, "two", frame[["id", *NUMBERS, "two"]])
    assert version.package.signature.frame == "object"
    original, compiled = version.scored(frame[["id", *NUMBERS, "two"]])
    assert np.abs(compiled.probabilities - original.probabilities).max() <= CLOSE


def test_what_ties_is_the_originals(register: Register) -> None:
    """Two trees that contradict each other: half of the rows are of either class with the probability 1/2."""
    frame = TRAINING.assign(two=TRAINING["age"] % 2)
    model = make_pipeline(one_hot(), RandomForestClassifier(2, max_depth=3, random_state=0))
    model.fit(frame[WORDS + NUMBERS], frame["two"])
    for tree in model[-1].estimators_:
        tree.tree_.value[:] = 0.5
    version = register(model, "two", frame)
    original, compiled = version.scored(frame)
    assert set(original.probabilities.ravel()) == {0.5}
    assert compiled.prediction.tolist() == original.prediction.tolist()


def test_words_on_which_the_original_raises_are_refused_by_the_compiled_form_too(register: Register) -> None:
    model = make_pipeline(one_hot(handle_unknown="error"), LogisticRegression(max_iter=500))
    version = register(model.fit(TRAINING[WORDS + NUMBERS], TRAINING["two"]), "two")
    assert version.package.compiled.guards.unseen == WORDS
    few = FRESH[:100]
    original, compiled = version.scored(few)
    assert (few["plan"] == "never seen").sum() <= len(compiled.errors) < len(few)
    assert [(error.row, error.message) for error in compiled.errors] == [(e.row, e.message) for e in original.errors]


def test_an_unknown_estimator_is_scored_by_itself_and_the_reason_told(tmp_path: Path, register: Register) -> None:
    model = make_pipeline(one_hot(), KNeighborsClassifier()).fit(TRAINING[WORDS + NUMBERS], TRAINING["two"])
    with pytest.raises(InvalidPackage, match=r"cannot be compiled to ONNX: .*KNeighborsClassifier.*--runtime auto"):
        register(model, "two")
    assert examined(tmp_path, "auto").reason == "there is no exact conversion of KNeighborsClassifier"
    assert examined(tmp_path, "auto").lanes == []


def examined(folder: Path, wanted: Any) -> Compiled:
    """The artefact of before once more; nothing may be stored."""
    content = (folder / "model.joblib").read_bytes()
    package = examine(
        folder / "model.joblib", format="joblib", digest=digest_of(content), reference=folder / "reference.csv", key="id",
        target="two", wanted=wanted, put=lambda _: pytest.fail("stored"),
    )  # fmt: skip
    return package.compiled


def test_a_subclass_is_not_taken_for_its_parent(register: Register) -> None:
    model = make_pipeline(one_hot(), Contrary()).fit(TRAINING[WORDS + NUMBERS], TRAINING["price"])
    with pytest.raises(InvalidPackage, match="no exact conversion of Contrary"):
        register(model, "price")


class Contrary(LinearRegression):
    def predict(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803 - as its parent
        return -super().predict(X)


def test_a_conversion_that_errs_is_not_used(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One threshold, in one of 12 trees, is off by a little."""

    def shifted(graph: Graph, features: str, trees: Any, targets: int) -> str:
        target, tree = trees[0]
        threshold = np.array(tree.threshold)
        threshold[0] += 0.05
        trees = [(target, Tree(**{**vars(tree), "threshold": threshold})), *trees[1:]]
        return add_trees(graph, features, trees, targets)

    model, target = KINDS["forest"]
    model.fit(TRAINING[WORDS + NUMBERS], TRAINING[target])
    monkeypatch.setattr(heads, "add_trees", shifted)
    with pytest.raises(InvalidPackage, match=r"compiled, it differs"):
        register(model, target)


def test_a_compiled_form_that_was_changed_is_refused(tmp_path: Path, register: Register) -> None:
    model, target = KINDS["logistic"]
    version = register(model.fit(TRAINING[WORDS + NUMBERS], TRAINING[target]), target)
    content = bytearray((tmp_path / "compiled").read_bytes())
    content[-10] ^= 1
    (tmp_path / "compiled").write_bytes(content)
    with pytest.raises(ArtefactRefused, match="the registry vouches for"):
        loaded(tmp_path / "compiled", version.package, version.original)


def test_what_is_not_faster_is_not_used(tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    model, target = KINDS["logistic"]
    register(model.fit(TRAINING[WORDS + NUMBERS], TRAINING[target]), target)
    monkeypatch.setattr("registry.compiled.examined.WORTH", 0.0)
    found = examined(tmp_path, "auto")
    assert (found.lanes, found.digest, found.reason) == ([], None, "it is not faster")
    assert found.seconds["bulk"].rows == len(TRAINING)
