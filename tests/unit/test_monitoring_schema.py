"""The profile schema: its bins follow the reference, and it stays what it is when it is stored."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from profiled import BINARY, OneColumn, same_scores, scores_of, signature_of, table_of

from monitoring.profile import profile_of
from monitoring.schema import CategoryColumn, NumericColumn, ProfileSchema, schema_of
from registry.runtime import Scores
from registry.signature import Output, Signature

ROWS = 2_000


def numeric(cells, type="number") -> tuple[OneColumn, NumericColumn]:
    built = OneColumn(type, cells)
    column = built.schema.columns[0]
    assert isinstance(column, NumericColumn)
    return built, column


def test_bins_of_a_continuous_column_have_about_equal_mass():
    values = np.random.default_rng(1).lognormal(3, 1, 20_000)
    built, column = numeric(values)
    counts = built.reference.column("x").bins
    assert column.bins == 130  # 128 and the two open ones, which the reference does not reach
    assert counts[0] == counts[-1] == 0
    assert counts[1:-1].min() >= 20_000 / 128 - 1
    assert counts[1:-1].max() <= 20_000 / 128 + 1


def test_each_of_few_values_has_a_bin_of_its_own():
    values = np.random.default_rng(2).integers(-3, 60, ROWS).astype(float)
    built, _ = numeric(values, "integer")
    counts = built.reference.column("x").bins
    assert counts[counts > 0].tolist() == np.unique(values, return_counts=True)[1].tolist()
    beside = built.profile(values + 1e-9).column("x").bins
    assert not (beside * counts).any()


def test_a_heavy_value_among_many_has_a_bin_of_its_own():
    random = np.random.default_rng(3)
    values = np.where(random.random(ROWS) < 0.3, 0.0, random.normal(0, 1, ROWS))
    built, column = numeric(values)
    place = np.searchsorted(column.edge_array, 0.0, "right")
    assert built.reference.column("x").bins[place] == (values == 0).sum()
    assert column.edges[place] == np.nextafter(0.0, 1.0)


def test_one_absurd_value_does_not_stretch_the_bins():
    values = np.random.default_rng(4).normal(0, 1, ROWS)
    _, clean = numeric(values)
    _, spoiled = numeric(np.append(values, 1e6))
    assert np.abs(np.array(clean.edges[1:-1]) - np.array(spoiled.edges[1:-1])).max() < 0.2


@pytest.mark.parametrize(
    ("type", "cells", "expected"),
    [
        ("timestamp", [datetime(2013, 4, 30, 12, tzinfo=UTC).replace(tzinfo=None)], 1_367_323_200.0),
        ("text", ["Ünal"], 4.0),
    ],
)
def test_numbers_of_what_is_no_number(type, cells, expected):
    built, column = numeric(cells, type)
    assert column.center == built.reference.column("x").minimum == expected


def test_the_most_frequent_categories_are_kept_and_the_rest_is_known():
    cells = [f"c{at:03d}" for at in range(130) for _ in range(200 - at)]
    built = OneColumn("category", cells)
    column = built.schema.columns[0]
    assert isinstance(column, CategoryColumn)
    assert column.categories == tuple(f"c{at:03d}" for at in range(100))
    found = built.profile(["c000", "c129", "c100", "new", None]).column("x")
    assert (found.bins[0], found.bins[100], found.bins[column.unseen], found.nulls) == (1, 2, 1, 1)
    assert found.unseen_values == ("new",)


def test_outputs_of_a_binary_classifier():
    schema = OneColumn("number", np.arange(50.0)).schema
    prediction, probability = schema.columns[1:]
    assert isinstance(prediction, CategoryColumn)
    assert isinstance(probability, NumericColumn)
    assert (prediction.name, sorted(prediction.categories)) == ("prediction", ["0", "1"])
    assert probability.name == "probability"
    assert {at / 200 for at in range(1, 200)} <= set(probability.edges)


def test_more_classes_are_profiled_by_confidence_and_a_class_never_given_is_known():
    output = Output(kind="classification", classes=["a", "b", "c"], class_type="text", has_probability=True)
    types = {"x": "number"}
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]])
    scores = Scores(np.array(["a", "b"]), probabilities)
    features = table_of(types, {"x": [1.0, 2.0]})
    schema = schema_of(signature_of(types, output), features, scores)
    assert schema.columns[1].categories == ("a", "b", "c")
    later = profile_of(schema, features, Scores(np.array(["c", "c"], object), probabilities[::-1]), [])
    assert later.column("prediction").bins.tolist() == [0, 0, 2, 0, 0]
    assert (later.column("probability").minimum, later.column("probability").maximum) == (0.6, 0.7)


def test_regression_is_profiled_by_its_value():
    types = {"x": "number"}
    features = table_of(types, {"x": [1.0, 2.0]})
    scores = Scores(np.array([10.0, 20.0]), None)
    schema = schema_of(signature_of(types, Output(kind="regression")), features, scores)
    assert [column.name for column in schema.columns] == ["x", "prediction"]
    assert profile_of(schema, features, scores, []).column("prediction").mean == 15.0


def test_a_feature_may_be_called_prediction():
    types = {"prediction": "number"}
    schema = schema_of(signature_of(types), table_of(types, {"prediction": [1.0, 2.0]}), same_scores(2))
    assert [column.name for column in schema.columns] == ["prediction (input)", "prediction", "probability"]


def test_a_stored_schema_is_the_same_schema():
    random = np.random.default_rng(5)
    schema = OneColumn("number", random.normal(0, 1e-7, ROWS)).schema
    again = ProfileSchema.model_validate_json(schema.model_dump_json())
    assert again == schema
    assert again.digest == schema.digest
    assert len(schema.digest) == 64


def test_another_reference_is_another_schema():
    values = np.arange(1000.0)
    assert OneColumn("number", values).schema.digest == OneColumn("number", values[::-1]).schema.digest
    assert OneColumn("number", values).schema.digest != OneColumn("number", np.append(values, 1000)).schema.digest


def test_a_reference_without_values_has_a_schema():
    built, column = numeric([None, None])
    assert column.edges == ()
    assert built.reference.column("x").nulls == 2


def test_a_model_that_was_not_examined_is_refused():
    signature = Signature(columns=signature_of({"x": "number"}, BINARY).columns)
    with pytest.raises(ValueError, match="no output"):
        schema_of(signature, table_of({"x": "number"}, {"x": [1.0]}), scores_of([0.5]))


def test_no_ml_library_is_imported():
    """The API imports these modules, and its image has none."""
    code = (
        "import sys, monitoring.drift, monitoring.profile, monitoring.schema\n"
        "print([name for name in ('sklearn', 'scipy', 'pandas', 'joblib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
