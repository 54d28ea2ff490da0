"""Which rows champion and challenger are judged by, and what a challenger is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from registry.runtime import runtime_of
from registry.signature import Column, Signature
from training.contest import FEWEST_HOLD_OUT, Contest, Material, NotEnough, contest, material
from training.rows import Rows
from training.stored_rows import Stored, nothing
from training.target import Target
from training.versions import next_version

SIGNATURE = Signature(columns=[Column(name="x", type="number")], key="id", target="y")
TARGET = Target("y", "classification", (0, 1))


def some_rows(count: int, first: int = 0, slope: float = 2.0, times: Any = None, seed: int = 1) -> Rows:
    random = np.random.default_rng(seed)
    x = random.normal(size=count)
    y = (random.random(count) < 1 / (1 + np.exp(-slope * x))).astype(int)
    keys = pa.array([f"k{number}" for number in range(first, first + count)])
    return Rows(SIGNATURE, pa.table({"x": x}), pa.array(y.astype(str).tolist()), keys, times)


def stored(rows: Rows, received: Any = None) -> Stored:
    return Stored(rows, np.zeros(len(rows), np.int64) if received is None else received, 0, 0)


def chosen(reference: Rows, rows: Stored, **more: Any) -> Material:
    return material(reference, rows, **{"trained_through": -1, "champion_since": 0, "seed": 1, **more})


def test_the_latest_rows_judge_and_all_others_teach() -> None:
    reference = some_rows(500, first=10_000)
    found = chosen(reference, stored(some_rows(1_000, times=np.arange(1_000))))
    assert found.by == "time"
    assert (found.hold_out - 500).tolist() == list(range(700, 1_000))
    assert found.training.tolist() == list(range(1_200))
    assert found.document["rows"]["training"] == 1_200


def test_the_champion_is_judged_by_rows_later_than_its_training() -> None:
    rows = stored(some_rows(1_000, times=np.arange(1_000)))
    found = chosen(nothing(SIGNATURE), rows, trained_through=799)
    assert found.hold_out.tolist() == list(range(800, 1_000))
    with pytest.raises(NotEnough, match="199 labelled rows are later"):
        chosen(nothing(SIGNATURE), rows, trained_through=800)


def test_where_the_training_is_not_dated_rows_count_that_were_submitted_since() -> None:
    received = np.where(np.arange(1_000) < 400, 5, 50)
    rows = stored(some_rows(1_000, times=np.zeros(1_000, np.int64)), received)
    found = chosen(nothing(SIGNATURE), rows, trained_through=None, champion_since=50)
    assert found.by == "random", "one moment has no order"
    assert found.hold_out.min() >= 400
    assert len(found.hold_out) == FEWEST_HOLD_OUT


def test_records_of_the_reference_judge_nobody_that_may_have_learned_from_them() -> None:
    reference = some_rows(300, first=700)
    rows = stored(some_rows(1_000, times=np.arange(1_000)))
    found = chosen(reference, rows, trained_through=None)
    assert found.hold_out.max() < 700
    assert found.document["rows"]["reference"] == 0, "each record counts once, as it was stored"
    dated = chosen(reference, rows)
    assert dated.hold_out.min() == 700
    assert not set(dated.training.tolist()) & set(dated.hold_out.tolist())


def test_records_without_a_key_are_told_apart_by_their_cells() -> None:
    rows = some_rows(1_000, times=np.arange(1_000))
    bare = Rows(SIGNATURE, rows.features, rows.labels, pa.array([None] * 1_000, pa.string()), rows.times)
    reference = bare.take(np.arange(900, 1_000))
    found = chosen(reference, stored(bare))
    assert found.document["rows"]["reference"] == 0


def test_rows_of_one_label_judge_nobody() -> None:
    rows = some_rows(400, times=np.arange(400))
    same = Rows(rows.signature, rows.features, pa.array(["1"] * 400), rows.keys, rows.times)
    with pytest.raises(NotEnough, match="same label"):
        chosen(nothing(SIGNATURE), stored(same))


def held(champion: Any, slope: float, *, recipe: str | None = None, target: Target = TARGET) -> Contest:
    found = chosen(
        some_rows(200, first=10**6, slope=slope), stored(some_rows(3_000, slope=slope, times=np.arange(3_000)))
    )
    return contest(runtime_of(champion), SIGNATURE, found, target, recipe=recipe, seed=1, progress=lambda *_: None)


def fitted(slope: float) -> Any:
    rows = some_rows(2_000, slope=slope, seed=9)
    return LogisticRegression(C=0.5).fit(rows.frame, TARGET.values(rows.labels))


@pytest.mark.parametrize("recipe", [None, "linear"])
def test_a_champion_of_another_world_is_beaten_and_one_of_this_world_is_not(recipe: str | None) -> None:
    beaten = held(fitted(-2.0), 2.0, recipe=recipe)
    assert beaten.comparison.verdict == "better"
    assert beaten.comparison.mcnemar is not None
    assert beaten.comparison.mcnemar["p_value"] < 0.001
    assert beaten.challenger.metrics["accuracy"].value > beaten.champion.metrics["accuracy"].value
    assert held(fitted(2.0), 2.0, recipe=recipe).comparison.verdict == "same"


def test_without_a_recipe_the_champions_estimator_is_fitted_again() -> None:
    champion = fitted(-2.0)
    again = held(champion, 2.0).model
    assert type(again) is LogisticRegression
    assert again.C == 0.5
    assert again is not champion
    assert again.coef_[0, 0] > 0 > champion.coef_[0, 0]


def test_a_champion_in_two_parts_is_fitted_again_as_a_pipeline() -> None:
    rows = some_rows(2_000, slope=-2.0)
    scaler = StandardScaler().fit(rows.frame)
    model = LogisticRegression().fit(scaler.transform(rows.frame), TARGET.values(rows.labels))
    found = held({"model": model, "preprocessor": scaler, "feature_names": ["x"]}, 2.0)
    assert [type(step) for step in (found.model[0], found.model[1])] == [StandardScaler, LogisticRegression]
    assert found.comparison.verdict == "better"


def test_numbers_are_compared_by_their_squared_errors() -> None:
    number = Target("y", "regression")
    champion = LinearRegression().fit(some_rows(100).frame, np.random.default_rng(1).normal(size=100) + 5)
    found = held(champion, 2.0, target=number)
    assert (found.comparison.loss, found.comparison.verdict, found.comparison.mcnemar) == (
        "squared_error",
        "better",
        None,
    )


@pytest.mark.parametrize(
    ("existing", "after", "expected"),
    [
        ([], None, "1.0.0"),
        (["1.0.0", "1.9.3", "1.10.0"], None, "1.11.0"),
        (["1.0.0", "2.0.0"], "1.0.0", "1.1.0"),
        (["1.0.0", "1.1.0", "1.2.0-rc1"], "1.0.0", "1.3.0"),
    ],
)
def test_the_next_version_is_the_next_minor_one_that_is_free(
    existing: list[str], after: str | None, expected: str
) -> None:
    assert next_version(existing, after) == expected
