"""Performance estimated from scores alone: right while P(label | score) holds, and found out when it does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from labelled import binary, of_scores
from sklearn.isotonic import IsotonicRegression

from monitoring.accuracy import metrics
from monitoring.estimate import Calibration, agrees, calibration, estimated
from monitoring.intervals import Metric
from monitoring.score_bins import SCORE_EDGES

EDGES = np.linspace(0, 1, 201)
FITTED = calibration(*binary(20_000, seed=31, base=-1))


def histogram(scores, edges=EDGES):
    return np.histogram(scores, edges)[0]


def test_a_calibration_is_scikit_learns_isotonic_regression_of_the_bins() -> None:
    scores, truth = binary(4000, seed=32)
    middles = (np.floor(scores * 200) + 0.5) / 200
    expected = IsotonicRegression().fit(middles, truth)
    found = calibration(scores, truth)
    seen = histogram(scores) > 0
    assert found.probabilities[seen] == pytest.approx(expected.predict((EDGES[1:] + EDGES[:-1])[seen] / 2), abs=1e-12)
    assert (np.diff(found.probabilities) >= 0).all()
    assert found.rows.min() >= 1


def test_bins_without_rows_take_after_their_neighbour() -> None:
    found = calibration([0.101, 0.102, 0.9], [0, 1, 1])
    assert found.probabilities[[0, 20, 99, 101, 199]].tolist() == [0.5, 0.5, 0.5, 1.0, 1.0]
    with pytest.raises(ValueError, match="needs labelled rows"):
        calibration([], [])


def test_a_calibration_survives_json() -> None:
    again = Calibration.from_json(json.loads(json.dumps(FITTED.to_json(), allow_nan=False)))
    assert again.to_json() == FITTED.to_json()
    assert estimated(again, histogram([0.2, 0.7])) == estimated(FITTED, histogram([0.2, 0.7]))


@pytest.mark.parametrize("base", [-1.0, 0.0, -2.0])  # the scores as in the reference, and shifted
def test_estimates_meet_what_the_labels_say(base: float) -> None:
    """Within two points for 20,000 rows; the named metrics are those of the labels."""
    scores, truth = binary(20_000, seed=33, base=base)
    guess, realised = estimated(FITTED, histogram(scores)), metrics(of_scores(scores, truth))
    assert set(guess) == set(realised) - {"log_loss", "brier", "ece"}
    for name, metric in guess.items():
        assert metric.value == pytest.approx(realised[name].value, abs=0.02), name
        assert metric.low <= metric.value <= metric.high
    assert agrees(guess, realised)


def test_scores_that_are_no_probabilities_are_calibrated_first() -> None:
    scores, truth = binary(40_000, seed=34)
    distorted = scores**3 / (scores**3 + (1 - scores) ** 3)  # overconfident
    fitted = calibration(distorted[:20_000], truth[:20_000])
    guess = estimated(fitted, histogram(distorted[20_000:]))
    realised = metrics(of_scores(distorted[20_000:], truth[20_000:]))
    assert guess["accuracy"].value == pytest.approx(realised["accuracy"].value, abs=0.01)
    assert guess["accuracy"].value < np.maximum(distorted, 1 - distorted).mean() - 0.05


@pytest.mark.parametrize(("reference", "window"), [(300, 3000), (3000, 300)])
def test_intervals_hold_what_the_labels_say(reference: int, window: int) -> None:
    """In at least 90 % of 60 windows, each with a reference of its own, whichever of the two has few rows."""
    random, held = np.random.default_rng(35), []
    for _ in range(60):
        scores, truth = binary(reference + window, seed=int(random.integers(1 << 30)))
        guess = estimated(calibration(scores[:reference], truth[:reference]), histogram(scores[reference:]))
        realised = metrics(of_scores(scores[reference:], truth[reference:]))
        held.append([guess[name].low <= realised[name].value <= guess[name].high for name in ("accuracy", "recall")])
    assert (np.mean(held, axis=0) >= 0.9).all()


def test_a_changed_relation_fools_the_estimate_until_labels_come() -> None:
    scores, truth = binary(3000, seed=36)
    changed = np.where(np.random.default_rng(37).random(3000) < 0.3, 1 - truth, truth)
    guess = estimated(FITTED, histogram(scores))
    realised = metrics(of_scores(scores, changed))
    assert guess["accuracy"].low > realised["accuracy"].high
    assert not agrees(guess, realised)
    assert agrees(guess, metrics(of_scores(scores, truth)))


def test_estimates_disagree_only_by_what_is_significant_and_matters() -> None:
    exact, wide = Metric(0.80, 0.799, 0.801), Metric(0.80, 0.70, 0.90)
    assert agrees({"accuracy": exact}, {"accuracy": Metric(0.785, 0.784, 0.786)})
    assert agrees({"accuracy": wide}, {"accuracy": Metric(0.70, 0.65, 0.75)})
    assert not agrees({"accuracy": exact}, {"accuracy": Metric(0.77, 0.76, 0.78)})
    assert not agrees({"accuracy": exact, "roc_auc": exact}, {"accuracy": exact, "roc_auc": Metric(0.6, 0.5, 0.7)})
    assert agrees({"accuracy": exact}, {})


def test_estimates_seldom_disagree_by_chance_with_few_labels() -> None:
    scores, truth = binary(40_000, seed=38, base=-1)
    whole = estimated(FITTED, histogram(scores))
    few = [metrics(of_scores(scores[at : at + 200], truth[at : at + 200])) for at in range(0, 40_000, 200)]
    assert np.mean([agrees(whole, realised) for realised in few]) >= 0.97


def test_thresholds_and_bins_may_be_others() -> None:
    scores, truth = binary(20_000, seed=39, base=-1)
    half = len(scores) // 2
    fitted = calibration(scores[:half], truth[:half], SCORE_EDGES)
    guess = estimated(fitted, histogram(scores[half:], SCORE_EDGES), threshold=0.3)
    rows = truth[half:], scores[half:] >= 0.3
    assert guess["accuracy"].value == pytest.approx(np.mean(rows[0] == rows[1]), abs=0.02)
    assert guess["recall_positive"].value == pytest.approx(rows[1][rows[0] == 1].mean(), abs=0.03)
    with pytest.raises(ValueError, match="a threshold that is one of their edges"):
        estimated(fitted, histogram(scores, SCORE_EDGES), threshold=0.3001)
    with pytest.raises(ValueError, match="a histogram of 200 bins"):
        estimated(fitted, np.ones(100))


def test_a_window_without_rows_or_with_one_class_has_no_more_than_it_defines() -> None:
    assert estimated(FITTED, np.zeros(200)) == {}
    sure = calibration([0.1, 0.2, 0.3], [0, 0, 0])
    found = estimated(sure, histogram([0.1, 0.2]))
    assert found["accuracy"].value == 1.0
    assert "roc_auc" not in found
