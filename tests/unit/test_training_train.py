"""Training from a file to an artefact, a reference and a card: for two classes, for more, for numbers, by a user's recipe."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from labelled_files import people, written
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from threadpoolctl import threadpool_limits

from errors import InvalidInput
from registry.examine import Package, examine
from training.calibration import calibration_error
from training.candidates import cross_validated
from training.evaluation import of_scores
from training.losses import losses
from training.pipelines import columns_of, linear
from training.recipe import Context, recipe_of
from training.target import Target
from training.train import Order, Trained, train

ROWS = 1_200


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More would wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(people(ROWS), tmp_path_factory.mktemp("data") / "people.csv")


def order(data: Path, target: str = "left", **more: Any) -> Order:
    return Order("people", data, target, key="id", recipe=more.pop("recipe", "linear"), **more)


def examined(trained: Trained, target: str) -> Package:
    """As a worker examines what is registered."""
    digest = f"sha256:{hashlib.sha256(trained.artefact.path.read_bytes()).hexdigest()}"
    kind: Any = trained.artefact.format
    return examine(
        trained.artefact.path, format=kind, digest=digest, reference=trained.reference, key="id", target=target
    )


def loaded(trained: Trained) -> Any:
    path = trained.artefact.path
    return joblib.load(path) if path.suffix == ".joblib" else skops.io.load(path, trusted=[])


@pytest.mark.parametrize(
    ("target", "recipe", "metric", "limit"),
    [
        ("left", "linear", "accuracy", 0.7),
        ("shade", "linear", "accuracy", 0.6),
        ("price", "linear", "r2", 0.7),
        ("left", "gradient-boosting", "accuracy", 0.7),
        ("price", "gradient-boosting", "r2", 0.7),
    ],
)
def test_a_model_is_good_and_can_be_registered(
    data: Path, tmp_path: Path, *, target: str, recipe: str, metric: str, limit: float
) -> None:
    trained = train(order(data, target, recipe=recipe), tmp_path)
    assert trained.card.metrics[metric].value > limit
    package = examined(trained, target)
    assert package.signature.frame == "object"
    fitted = {column.name: (column.type, column.nullable) for column in trained.card.columns}
    assert {column.name: (column.type, column.nullable) for column in package.signature.columns} == fitted
    assert "note" not in fitted, "text that never repeats"
    # The reference is the hold-out, so it does as the hold-out did, give or take the few rows that were added.
    assert package.metrics[metric] == pytest.approx(trained.card.metrics[metric].value, abs=0.03)


def test_the_hold_out_is_what_comes_last_and_its_metrics_are_those_of_scikit_learn(data: Path, tmp_path: Path) -> None:
    trained = train(order(data), tmp_path)
    frame = people(ROWS)
    assert trained.card.split["column"] == "day"
    held = frame[frame["day"] >= "2024-02-10 00:00"]
    assert trained.card.rows["hold_out"] == len(held) == 240
    assert trained.card.split["trained_through"] == "2024-02-09T23:00:00Z"
    model = loaded(trained)
    inputs = held.assign(region=held["region"].where(held["region"].notna(), np.nan))
    guess, probability = model.predict(inputs), model.predict_proba(inputs)[:, 1]
    found = {name: metric.value for name, metric in trained.card.metrics.items()}
    truth = held["left"]
    assert found["accuracy"] == accuracy_score(truth, guess)
    assert found["f1"] == pytest.approx(f1_score(truth, guess, average="weighted"))
    assert found["log_loss"] == pytest.approx(log_loss(truth, probability))
    assert found["brier"] == pytest.approx(brier_score_loss(truth, probability))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, probability), abs=2e-3)  # counted in 200 bins
    for metric in trained.card.metrics.values():
        assert metric.low <= metric.value <= metric.high


def test_the_metrics_of_numbers_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    truth, guess = random.normal(size=300), random.normal(size=300)
    import pyarrow as pa

    from registry.runtime import Scores

    labels = pa.array([repr(float(value)) for value in truth])
    found = of_scores(Scores(guess, None), None, labels, Target("price", "regression")).metrics
    assert found["mae"].value == pytest.approx(mean_absolute_error(truth, guess))
    assert found["rmse"].value == pytest.approx(root_mean_squared_error(truth, guess))
    assert found["r2"].value == pytest.approx(r2_score(truth, guess))


def test_the_default_recipe_takes_the_best_of_its_candidates_and_says_what_it_tried(data: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    trained = train(order(data, recipe="default"), tmp_path, lambda *stage: stages.append(stage))
    losses = {each["name"]: each["loss"] for each in trained.card.candidates}
    assert {"baseline", "linear", "gradient-boosting", "small-trees"} <= set(losses)
    chosen = next(note for note in trained.card.notes if "lowest loss" in note).split("'")[1]
    assert losses[chosen] == min(losses.values())
    assert ("trying linear", 4, 4) in stages
    assert stages[-1][0] == "judging"
    document = json.loads((tmp_path / "card.json").read_text())
    assert document["metrics"]["accuracy"] == trained.card.metrics["accuracy"].to_json()
    page = (tmp_path / "card.md").read_text()
    assert "| accuracy |" in page
    assert "not used: note" in page


def test_the_same_seed_and_data_give_the_same_model(data: Path, tmp_path: Path) -> None:
    first, again = (train(order(data, at_random=True), tmp_path / name) for name in "ab")
    assert first.artefact.path.read_bytes() == again.artefact.path.read_bytes()
    assert first.reference.read_bytes() == again.reference.read_bytes()
    assert first.card.split == {"by": "random"}
    other = train(order(data, at_random=True, seed=5), tmp_path / "c")
    assert other.reference.read_bytes() != first.reference.read_bytes()


def test_the_card_does_not_run_the_names_of_columns(tmp_path: Path) -> None:
    frame = people(400)[["id", "amount", "visits", "left"]].rename(columns={"visits": "<script>|`x`"})
    train(order(written(frame, tmp_path / "d.csv")), tmp_path / "out")
    page = (tmp_path / "out" / "card.md").read_text()
    assert "\\<script\\>\\|\\`x\\`" in page


def test_cross_validation_in_time_never_judges_the_past(data: Path) -> None:
    frame = people(400)
    signature = train_signature()
    context = Context("classification", signature, in_time=True, seed=1)
    model = linear(columns_of(signature, frame[["amount", "visits"]]), "classification")
    tried = cross_validated("linear", model, frame[["amount", "visits"]], frame["left"], context)
    assert tried.rows.min() >= 400 // 5, "the first fold is only learned from"
    assert (np.diff(tried.rows) == 1).all()


def train_signature() -> Any:
    from registry.signature import Column, Signature

    columns = [Column(name="amount", type="number", nullable=True), Column(name="visits", type="integer")]
    return Signature(columns=columns)


# ---- calibration


def test_probabilities_that_boast_are_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naive Bayes on columns that repeat each other is far too sure of itself."""
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline

    from training import candidates

    random = np.random.default_rng(4)
    x = random.normal(size=3_000)
    frame = pd.DataFrame({f"x{number}": x + random.normal(0, 0.05, 3_000) for number in range(8)})
    frame["left"] = (x + random.normal(0, 1.5, 3_000) > 0).astype(int)
    frame["id"] = range(3_000)
    monkeypatch.setattr(candidates, "linear", lambda columns, kind: make_pipeline(GaussianNB()))
    trained = train(order(written(frame, tmp_path / "d.csv")), tmp_path / "out")
    tried = {each["name"]: each["loss"] for each in trained.card.candidates}
    assert tried["linear, calibrated"] < tried["linear"]
    assert any("correcting them (isotonic) helped" in note for note in trained.card.notes)
    assert trained.card.metrics["ece"].low < 0.02
    examined(trained, "left")


@pytest.mark.parametrize("classes", [2, 3])
def test_honest_probabilities_are_found_honest_and_others_not(classes: int) -> None:
    random = np.random.default_rng(6)
    honest = random.dirichlet(np.ones(classes), 20_000)
    truth = np.array([random.choice(classes, p=row) for row in honest])
    assert calibration_error(honest, truth, np.arange(classes)).low < 0.01
    boasting = honest**4 / (honest**4).sum(axis=1, keepdims=True)
    assert calibration_error(boasting, truth, np.arange(classes)).low > 0.1
    assert (
        losses(truth, None, boasting, np.arange(classes)).mean()
        > losses(truth, None, honest, np.arange(classes)).mean()
    )


# ---- recipes of others

RECIPES = """
from sklearn.tree import DecisionTreeClassifier

def shallow(X, y, context):
    context.notes.append(f"{context.kind}, in time: {context.in_time}")
    return DecisionTreeClassifier(max_depth=2, random_state=context.seed).fit(X[["visits"]], y)

def forgetful(X, y, context):
    return None

not_callable = 7
"""


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that offers recipes."""
    (tmp_path / "their_recipes.py").write_text(RECIPES)
    information = tmp_path / "their_recipes-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-recipes\nVersion: 1.0\n")
    names = {"shallow": "shallow", "forgetful": "forgetful", "seven": "not_callable", "lost": "nothing"}
    lines = [f"{name} = their_recipes:{attribute}" for name, attribute in names.items()]
    (information / "entry_points.txt").write_text("\n".join(["[scorehouse.training]", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_recipes", None)


@pytest.mark.usefixtures("plugged_in")
def test_a_recipe_of_your_own_is_plugged_in(data: Path, tmp_path: Path) -> None:
    trained = train(order(data, recipe="shallow"), tmp_path / "out")
    assert [column.name for column in trained.card.columns] == ["visits"]
    assert "classification, in time: True" in trained.card.notes
    assert trained.lineage["recipe"] == "shallow"
    assert examined(trained, "left").signature.names == ["visits"]


@pytest.mark.usefixtures("plugged_in")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shalow", "there are: default, linear, gradient-boosting, small-trees, forgetful, lost, seven, shallow"),
        ("lost", "cannot be imported"),
        ("seven", "is no function"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_told(name: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        recipe_of(name)


@pytest.mark.usefixtures("plugged_in")
def test_a_recipe_that_returns_no_model_is_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="returned a NoneType without `predict`"):
        train(order(data, recipe="forgetful"), tmp_path)
