"""Metrics of outcomes equal scikit-learn's on the same rows, their intervals cover, and windows are judged by them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from labelled import BINARY, REGRESSION, THREE, binary, of_counts, of_scores, texts, three
from sklearn import metrics as sklearn

from monitoring.accuracy import MIN_LABELS, judged, metrics
from monitoring.intervals import Metric, proportion
from monitoring.outcomes import Outcomes, merge, outcomes_of
from monitoring.roc_auc import exact_roc_auc
from registry.metrics import reference_metrics
from registry.signature import Output

WORDS = Output(kind="classification", classes=["no", "yes"], class_type="text", positive="yes", has_probability=True)
BOOLEANS = Output(
    kind="classification", classes=[False, True], class_type="boolean", positive=True, has_probability=True
)
FLIPPED = BINARY.model_copy(update={"positive": 0})


def values(outcomes: Outcomes) -> dict[str, float]:
    return {name: metric.value for name, metric in metrics(outcomes).items()}


def regressed(guess, labels) -> Outcomes:
    return outcomes_of(REGRESSION, texts(guess), None, None, texts(labels))


@pytest.mark.parametrize("output", [BINARY, WORDS, BOOLEANS], ids=["integers", "words", "booleans"])
def test_binary_metrics_equal_those_of_registration(output: Output) -> None:
    scores, truth = binary(3000, base=-1)
    labels = [str(output.classes[place]) for place in truth]
    guess = np.array(output.classes, object)[(scores > 0.5).astype(int)]
    expected = reference_metrics("y", labels, guess, np.stack([1 - scores, scores], axis=1), output)
    assert expected.pop("rows") == 3000
    found = values(of_scores(scores, labels, output))
    assert found.pop("ece") >= 0
    assert found.pop("roc_auc") == pytest.approx(expected.pop("roc_auc"), abs=1e-4)
    assert found == pytest.approx(expected, abs=1e-9)


def test_multiclass_metrics_equal_those_of_registration() -> None:
    probabilities, truth = three(3000)
    guess, labels = (np.array(THREE.classes)[places] for places in (probabilities.argmax(axis=1), truth))
    expected = reference_metrics("y", labels.tolist(), guess, probabilities, THREE)
    assert expected.pop("rows") == 3000
    assert values(outcomes_of(THREE, guess, None, probabilities, labels)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_regression_metrics_equal_those_of_registration(offset: float) -> None:
    random = np.random.default_rng(4)
    truth = offset + random.normal(size=3000)
    guess = truth + random.standard_t(4, 3000) * 0.3 + 0.1
    expected = reference_metrics("y", texts(truth), guess, None, REGRESSION)
    assert expected.pop("rows") == 3000
    halves = [regressed(guess[part], truth[part]) for part in (slice(0, 1000), slice(1000, None))]
    found = values(merge(halves))
    assert found.pop("bias") == pytest.approx(np.mean(guess - truth), abs=1e-9)
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_positive_class_may_be_the_first_one() -> None:
    scores, truth = binary(2000)
    labels, guess = 1 - truth, 1 - (scores > 0.5)
    found = values(outcomes_of(FLIPPED, texts(guess), scores, None, texts(labels)))
    assert found["f1_positive"] == pytest.approx(sklearn.f1_score(labels, guess, pos_label=0), abs=1e-9)
    assert found["roc_auc"] == pytest.approx(sklearn.roc_auc_score(truth, scores), abs=1e-4)
    assert found["brier"] == pytest.approx(sklearn.brier_score_loss(truth, scores), abs=1e-9)


def test_unknown_labels_are_wrong_predictions() -> None:
    scores, truth = binary(1000)
    labels = truth.astype(str).astype(object)
    labels[::10], labels[5::100] = "2", "late"
    guess = (scores > 0.5).astype(int).astype(str)
    found = metrics(of_scores(scores, labels.tolist()))
    precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
        labels, guess, average="weighted", zero_division=0, labels=["0", "1", "2", "late"]
    )
    told = [found[name].value for name in ("accuracy", "precision", "recall", "f1")]
    assert told == pytest.approx([sklearn.accuracy_score(labels, guess), precision, recall, f1], abs=1e-9)
    assert found["precision_positive"].value == pytest.approx(
        sklearn.precision_score(labels, guess, labels=["1"], average="macro"), abs=1e-9
    )
    known = np.isin(labels, ["0", "1"])
    assert found["log_loss"].value == pytest.approx(sklearn.log_loss(truth[known], scores[known]), abs=1e-9)


def test_certain_and_wrong_scores_have_a_finite_loss() -> None:
    scores, truth = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1, 0, 0, 1])
    assert values(of_scores(scores, truth))["log_loss"] == pytest.approx(sklearn.log_loss(truth, scores), abs=1e-9)


def test_what_the_rows_do_not_define_is_left_out() -> None:
    assert metrics(of_scores(np.empty(0), [])) == {}
    assert metrics(regressed([], [])) == {}
    one_class = metrics(of_scores([0.2, 0.7, 0.4], ["0", "0", "0"]))
    assert "roc_auc" not in one_class
    assert one_class["accuracy"].value == pytest.approx(2 / 3)
    assert one_class["recall_positive"] == Metric(0.0, 0.0, 1.0)
    assert "r2" not in metrics(regressed([1.0, 2.0], [3.0, 3.0]))
    assert metrics(regressed([1.0], [3.0])).keys() == {"mae", "rmse", "bias"}
    assert metrics(of_counts(1, 1, 1, 1)).keys().isdisjoint({"log_loss", "brier", "ece", "roc_auc"})


@pytest.mark.parametrize("base", [0.0, -1.5, -3.5, -5.0])  # 50 %, 25 %, 7 % and 2 % positives
def test_roc_auc_of_bins_is_the_exact_one(base: float) -> None:
    scores, truth = binary(50_000, base=base)
    exact = sklearn.roc_auc_score(truth, scores)
    assert values(of_scores(scores, truth))["roc_auc"] == pytest.approx(exact, abs=1e-4)
    assert exact_roc_auc(truth, scores) == pytest.approx(exact, abs=1e-12)


def test_roc_auc_counts_ties_as_half() -> None:
    scores, truth = binary(5000)
    leaves = np.round(scores, 1)
    exact = sklearn.roc_auc_score(truth, leaves)
    assert exact_roc_auc(truth, leaves) == pytest.approx(exact, abs=1e-12)
    assert values(of_scores(leaves, truth))["roc_auc"] == pytest.approx(exact, abs=1e-9)
    with pytest.raises(ValueError, match="both classes"):
        exact_roc_auc([1, 1], [0.1, 0.2])


def test_the_calibration_error_is_that_of_twenty_equal_bins() -> None:
    scores, truth = binary(4000)
    scores = scores**1.5
    place = np.digitize(scores, np.linspace(0, 1, 21)) - 1
    gaps = [abs(np.sum(truth[place == one] - scores[place == one])) for one in range(20)]
    found = metrics(of_scores(scores, truth))["ece"]
    assert found.value == pytest.approx(sum(gaps) / 4000, abs=1e-9)
    assert 0.02 < found.low < found.value < found.high


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_the_published_ones(hits: int, rows: int, low: float, high: float) -> None:
    metric = proportion(hits, rows)
    assert (metric.low, metric.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = proportion(rows - hits, rows)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=5e-5)
    assert proportion(rows, rows).high == 1.0


def test_intervals_cover_the_truth() -> None:
    """Of 95 % intervals of 300 windows of 500 rows, at least 90 % hold the value of a million rows."""
    scores, truth = binary(1_000_000, seed=11, base=-1)
    whole = values(of_scores(scores, truth))
    windows = [metrics(of_scores(scores[at : at + 500], truth[at : at + 500])) for at in range(0, 150_000, 500)]
    for name in whole.keys() - {"ece"}:  # a biased metric: even its value for a million rows is not the limit
        covered = np.mean([window[name].low <= whole[name] <= window[name].high for window in windows])
        assert covered >= 0.9, name
    assert np.mean([window["ece"].low <= 0.005 for window in windows]) >= 0.9  # the model is calibrated


def test_intervals_of_averages_are_as_wide_as_resampling_has_them() -> None:
    probabilities, truth = three(800)
    guess = np.array(THREE.classes)[(probabilities * [0.3, 1, 3]).argmax(axis=1)]  # of very unlike precision and recall
    labels = np.array([*THREE.classes, "d"])[truth]
    labels[::40] = "d"
    found, random = metrics(outcomes_of(THREE, guess, None, None, labels)), np.random.default_rng(9)
    samples = random.integers(0, 800, (1000, 800))
    drawn = [values(outcomes_of(THREE, guess[rows], None, None, labels[rows])) for rows in samples]
    for name in ("accuracy", "precision", "f1"):
        width = 2 * 1.96 * np.std([one[name] for one in drawn])
        assert found[name].high - found[name].low == pytest.approx(width, rel=0.06), name


def test_regression_intervals_cover_the_truth() -> None:
    random = np.random.default_rng(12)
    guess = random.normal(size=200_000)
    label = guess + random.normal(0.1, 0.6, 200_000)
    whole = values(regressed(guess, label))
    windows = [metrics(regressed(guess[at : at + 400], label[at : at + 400])) for at in range(0, 120_000, 400)]
    for name, value in whole.items():
        covered = np.mean([window[name].low <= value <= window[name].high for window in windows])
        assert 0.9 <= covered < 0.99, name


@pytest.mark.parametrize("error", [0.0, 1e-100, 1e-160])
def test_a_perfect_regression_has_an_interval_too(error: float) -> None:
    labels = np.array([1e-90, 2e-90, -1e-90])
    found = metrics(regressed(labels + error, labels))["r2"]
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_metrics_are_the_same_each_time_and_quick() -> None:
    scores, truth = binary(20_000)
    outcomes = of_scores(scores, truth)
    first = metrics(outcomes)
    started = time.process_time()
    assert metrics(outcomes) == first
    assert time.process_time() - started < 0.5


def status(outcomes: Outcomes, scored: int, reference=None, *, tolerance: float = 0.05, old_enough: bool = False):
    return judged(outcomes, scored, reference, tolerance=tolerance, old_enough=old_enough).status


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((60, 40, 40, 60), "ok"),
        ((60, 40, 40, 59), "insufficient_data"),  # 199 labels
        ((20, 10, 80, 90), "ok"),
        ((20, 9, 80, 91), "insufficient_data"),  # 29 positives
        ((91, 80, 9, 20), "insufficient_data"),  # 29 negatives
        ((0, 0, 0, 0), "insufficient_data"),
    ],
)
def test_too_few_labels_are_not_judged(counts: tuple[int, int, int, int], expected: str) -> None:
    assert status(of_counts(*counts), sum(counts), {"accuracy": 0.5}) == expected
    assert status(of_counts(*counts), sum(counts), None, old_enough=True) == expected


def test_too_few_numbers_are_not_judged() -> None:
    labels = np.random.default_rng(1).normal(size=MIN_LABELS)
    assert status(regressed(labels + 0.1, labels), MIN_LABELS) == "ok"
    assert status(regressed(labels[1:] + 0.1, labels[1:]), MIN_LABELS) == "insufficient_data"


def test_a_young_window_is_provisional_below_80_percent() -> None:
    bad = of_counts(100, 300, 300, 100)
    reference = {"accuracy": 0.9}
    assert status(bad, 1000, reference) == "critical"
    assert status(bad, 1001, reference) == "provisional"
    assert status(bad, 1001, reference, old_enough=True) == "critical"
    assert status(of_counts(40, 40, 0, 0), 1000, reference) == "insufficient_data"


def test_the_whole_interval_must_be_worse_than_the_tolerance() -> None:
    outcomes = of_counts(350, 150, 150, 350)
    high = metrics(outcomes)["accuracy"].high  # 0.728
    for above, expected in [(0.049, "ok"), (0.051, "warn"), (0.099, "warn"), (0.101, "critical"), (-0.2, "ok")]:
        accuracy = judged(outcomes, 1000, {"accuracy": high + above}, tolerance=0.05, old_enough=False)
        assert accuracy.status == expected, above
        assert accuracy.worse == ({} if expected == "ok" else {"accuracy": expected})
    assert status(outcomes, 1000, {"f1": 0.9}) == "critical"
    assert status(outcomes, 1000, {"log_loss": 0.0, "rows": 1000.0}) == "ok"
    assert status(outcomes, 1000, None) == "ok"


def test_errors_are_compared_as_a_share_of_the_reference() -> None:
    random = np.random.default_rng(6)
    labels = 1000 * random.normal(size=2000)
    outcomes = regressed(labels + 100 * random.normal(size=2000), labels)
    low = metrics(outcomes)["rmse"].low
    for share, expected in [(1.04, "ok"), (1.06, "warn"), (1.09, "warn"), (1.11, "critical"), (0.5, "ok")]:
        assert status(outcomes, 2000, {"rmse": low / share}) == expected, share
    assert status(outcomes, 2000, {"mae": 50.0}) == "critical"


def test_a_rare_class_without_any_power_left_is_noticed() -> None:
    scores, truth = binary(20_000, base=-4.5, spread=1.2)
    reference = values(of_scores(scores, truth))
    powerless = of_scores(np.random.default_rng(7).permutation(scores), truth)
    accuracy = judged(powerless, 20_000, reference, tolerance=0.05, old_enough=False)
    assert (accuracy.status, accuracy.worse) == ("critical", {"roc_auc": "critical"})


def test_false_alarms_are_rare() -> None:
    """Windows of 300 rows of the very model of the reference, with a tolerance of 2 points."""
    scores, truth = binary(60_000, seed=21)
    reference = values(of_scores(scores, truth))
    found = [
        status(of_scores(scores[at : at + 300], truth[at : at + 300]), 300, reference, tolerance=0.02)
        for at in range(0, 60_000, 300)
    ]
    assert found.count("ok") >= 198


def test_the_shape_of_the_interface() -> None:
    scores, truth = binary(400)
    outcomes = of_scores(scores, [*truth[:399].astype(str).tolist(), "2"])
    told = judged(outcomes, 500, {"rows": 240.0, "accuracy": 0.7}, tolerance=0.05, old_enough=False).to_json()
    assert told.keys() >= {"scored", "labelled", "coverage", "status", "metrics", "reference"}
    assert (told["scored"], told["labelled"], told["unknown"], told["coverage"]) == (500, 400, 1, 0.8)
    assert told["metrics"]["accuracy"].keys() == {"value", "low", "high"}
    assert told["reference"] == {"rows": 240.0, "accuracy": 0.7}
    assert judged(outcomes_of(BINARY, [], None, None, []), 0, None, tolerance=0.05, old_enough=False).coverage == 0.0
