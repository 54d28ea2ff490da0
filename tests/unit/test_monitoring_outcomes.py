"""Labelled predictions become counters: which labels match which classes, and that counters merge and are stored."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import BINARY, REGRESSION, THREE, binary, of_scores, texts, three

from monitoring.accuracy import metrics
from monitoring.label_texts import with_horizon
from monitoring.outcomes import ClassOutcomes, ErrorOutcomes, Outcomes, from_json, merge, outcomes_of
from monitoring.score_bins import SCORE_EDGES
from registry.signature import Output

NOW = datetime(2013, 7, 1, tzinfo=UTC)


def assert_equal(one: Outcomes, other: Outcomes) -> None:
    assert metrics(one).keys() == metrics(other).keys()
    for name, metric in metrics(one).items():
        for end in ("value", "low", "high"):
            assert getattr(metric, end) == pytest.approx(getattr(metrics(other)[name], end), rel=1e-9, abs=1e-12), name
    assert (one.labelled, one.unknown) == (other.labelled, other.unknown)


def regression(rows: int = 500, offset: float = 0.0) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(5)
    label = offset + random.normal(size=rows)
    return texts(label + random.normal(0.2, 0.5, rows)), texts(label)


def parts_and_whole(kind: str) -> tuple[list[Outcomes], Outcomes]:
    cuts = [0, 1, 70, 70, 300, 500]
    slices = [slice(low, high) for low, high in itertools.pairwise(cuts)] + [slice(0, 500)]
    if kind == "binary":
        scores, truth = binary(500)
        found = [of_scores(scores[part], truth[part]) for part in slices]
    elif kind == "multiclass":
        probabilities, truth = three(500)
        guess, labels = (np.array(["a", "b", "c"])[places] for places in (probabilities.argmax(axis=1), truth))
        labels[::50] = "d"
        found = [outcomes_of(THREE, guess[part], None, probabilities[part], labels[part]) for part in slices]
    else:
        guess, labels = regression(offset=1e6)
        labels[3] = "unknown"
        found = [outcomes_of(REGRESSION, guess[part], None, None, labels[part]) for part in slices]
    return found[:-1], found[-1]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_merged_parts_equal_the_whole(kind: str) -> None:
    parts, whole = parts_and_whole(kind)
    assert whole.labelled == 500
    assert_equal(merge(parts), whole)
    assert_equal(merge(parts[::-1]), whole)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_outcomes_survive_json(kind: str) -> None:
    for outcomes in parts_and_whole(kind)[0]:  # an empty part is among them
        stored = json.loads(json.dumps(outcomes.to_json(), allow_nan=False))
        again = from_json(stored)
        assert again.to_json() == stored
        assert_equal(merge([again, outcomes]), merge([outcomes, outcomes]))


def test_outcomes_of_other_classes_do_not_merge() -> None:
    none = np.empty(0)
    other = Output(kind="classification", classes=[0, 2], class_type="integer", positive=2, has_probability=True)
    empty = outcomes_of(BINARY, [], none, None, [])
    with pytest.raises(ValueError, match="do not merge"):
        merge([empty, outcomes_of(other, [], none, None, [])])
    regressed = outcomes_of(REGRESSION, [], None, None, [])
    for pair in ([empty, regressed], [regressed, empty]):
        with pytest.raises(TypeError, match="do not merge"):
            merge(pair)


@pytest.mark.parametrize(
    ("classes", "predicted", "label", "place"),
    [
        ([0, 1], "1", "1", 1),
        ([0, 1], "1", "1.0", 1),
        ([0, 1], "1", " 1 ", 1),
        ([0, 1], "1", "true", 1),
        ([0, 1], "1", "FALSE", 0),
        ([0, 1], "1", "2", 2),
        ([0, 1], "1", "late", 2),
        ([0, 1], "1", "nan", 2),
        ([0.0, 1.0], "1", "1", 1),
        ([1.5, 2.0], "2", "1.50", 0),
        ([False, True], "true", "1", 1),
        ([False, True], "true", "True", 1),
        ([False, True], "true", "0.0", 0),
        ([False, True], "false", "yes", 2),
        (["0", "1"], "1", "1", 1),
        (["0", "1"], "1", "1.0", 2),
        (["no", "yes"], "yes", "yes\n", 1),
        (["no", "yes"], "yes", "Yes", 2),
        (["no", " yes"], " yes", " yes", 1),
    ],
)
def test_labels_name_classes(classes, predicted: str, label: str, place: int) -> None:
    output = Output(kind="classification", classes=classes, positive=classes[1])
    outcomes = outcomes_of(output, [predicted], None, None, [label])
    assert isinstance(outcomes, ClassOutcomes)
    assert outcomes.confusion.sum(axis=1).tolist() == [int(row == place) for row in range(3)]
    assert outcomes.unknown == int(place == 2)


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_rows_without_a_label_count_nowhere(blank: str | None) -> None:
    assert_equal(of_scores([0.2, 0.7, 0.9], ["0", blank, "1"]), of_scores([0.2, 0.9], ["0", "1"]))
    some = outcomes_of(REGRESSION, ["1", "2", "3"], None, None, ["1.5", blank, "2"])
    assert_equal(some, outcomes_of(REGRESSION, ["1", "3"], None, None, ["1.5", "2"]))


@pytest.mark.parametrize("label", ["late", "nan", "inf", "-inf", "1e300"])
def test_a_label_that_is_no_number_is_unknown(label: str) -> None:
    outcomes = outcomes_of(REGRESSION, ["1", "2"], None, None, ["1.5", label])
    assert isinstance(outcomes, ErrorOutcomes)
    assert (outcomes.rows, outcomes.unknown, outcomes.labelled) == (1, 1, 2)
    assert metrics(outcomes)["mae"].value == 0.5


def test_an_absurd_prediction_can_be_stored() -> None:
    outcomes = outcomes_of(REGRESSION, ["1e300", "2"], None, None, ["1", "2"])
    json.dumps(outcomes.to_json(), allow_nan=False)
    assert metrics(outcomes)["mae"].value > 1e50


def test_numpy_arrays_serve_as_well() -> None:
    scores, truth = binary(50)
    guess, labels = (scores > 0.5).astype(int).astype(str), truth.astype(str).astype(object)
    assert_equal(outcomes_of(BINARY, guess, scores, None, labels), of_scores(scores, truth))
    both = np.stack([1 - scores, scores], axis=1)
    assert_equal(outcomes_of(BINARY, guess, None, both, labels), of_scores(scores, truth))


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        outcomes_of(BINARY, ["1"], np.array([0.5, 0.5]), None, ["1"])
    with pytest.raises(ValueError, match="not one of the classes 0, 1"):
        outcomes_of(BINARY, ["late"], np.array([0.5]), None, ["1"])
    with pytest.raises(ValueError, match="not a finite number"):
        outcomes_of(REGRESSION, ["late"], None, None, ["1"])


@given(st.lists(st.floats(0, 1), max_size=50))
def test_each_score_is_counted_in_its_bin(scores: list[float]) -> None:
    outcomes = of_scores(scores, ["1"] * len(scores))
    assert isinstance(outcomes, ClassOutcomes)
    assert outcomes.counts[1].tolist() == np.histogram(scores, SCORE_EDGES)[0].tolist()
    assert outcomes.score_sums.sum() == pytest.approx(sum(scores))


def test_no_event_by_the_horizon_means_negative() -> None:
    at = [NOW - timedelta(days=days) for days in (31, 30, 29, 31, 31, 1)]
    labels = [None, " ", None, "1", "0", "1"]
    assert with_horizon(labels, at, NOW, timedelta(days=30), 0) == ["0", "0", None, "1", "0", "1"]
    filled = with_horizon([None], at[:1], NOW, timedelta(days=30), False)
    output = Output(kind="classification", classes=[False, True], class_type="boolean", positive=True)
    outcomes = outcomes_of(output, ["false"], None, None, filled)
    assert metrics(outcomes)["accuracy"].value == 1.0
