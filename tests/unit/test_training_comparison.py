"""Champion against challenger: equals are seldom told apart, a better one is found, and pairing makes the difference."""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest
from sklearn.metrics import log_loss, mean_squared_error

from training.comparison import compared, mcnemar
from training.losses import in_order, losses


def test_chance_alone_promotes_in_two_and_a_half_percent() -> None:
    """400 comparisons of equals whose losses are skewed, as log losses are: a binomial of 2.5 % says 10, give or take 10."""
    random = np.random.default_rng(11)
    verdicts = []
    for seed in range(400):
        hard = random.gamma(0.5, 1.0, 400)
        first, second = (hard + random.gamma(0.3, 0.3, 400) for _ in range(2))
        verdicts.append(compared(first, second, loss="log_loss", draws=300, seed=seed).verdict)
    assert binomtest(verdicts.count("better"), 400, 0.025).pvalue > 0.001, verdicts.count("better")
    assert binomtest(verdicts.count("worse"), 400, 0.025).pvalue > 0.001, verdicts.count("worse")


def test_a_small_gain_on_every_row_is_found_because_rows_are_paired() -> None:
    hard = np.random.default_rng(12).gamma(0.5, 1.0, 500)
    found = compared(hard + 0.02, hard, loss="log_loss")
    assert found.verdict == "better"
    assert found.difference.value == pytest.approx(0.02)
    assert compared(hard, hard + 0.02, loss="log_loss").verdict == "worse"
    assert compared(hard, hard, loss="log_loss").verdict == "same"


def test_the_interval_is_that_of_the_mean() -> None:
    differences = np.random.default_rng(13).normal(0.1, 1.0, 2_000)
    found = compared(differences, np.zeros(2_000), loss="squared_error", draws=4_000).difference
    error = differences.std() / np.sqrt(2_000)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)


def test_mcnemar_is_the_binomial_of_the_rows_that_differ() -> None:
    champion = np.array([True] * 60 + [False] * 40)
    challenger = np.array([True] * 50 + [False] * 10 + [True] * 25 + [False] * 15)
    found = mcnemar(champion, challenger)
    assert (found["only_champion"], found["only_challenger"]) == (10, 25)
    # By hand: twice the chance of at most 10 heads in 35.
    tail = sum(float(comb(35, heads)) for heads in range(11)) / 2**35
    assert found["p_value"] == pytest.approx(2 * tail)
    assert mcnemar(champion, champion)["p_value"] == 1.0


def test_who_is_less_accurate_is_not_better_whatever_the_loss() -> None:
    rows = 400
    champion = np.full(rows, 0.7)
    challenger = np.full(rows, 0.5)
    right = np.ones(rows, bool), np.arange(rows) >= 40
    found = compared(champion, challenger, loss="log_loss", right=right)
    assert found.difference.low > 0
    assert found.verdict == "worse"
    assert "significantly less accurate (40 rows only the champion has right, 0 only the challenger" in found.reason


def test_the_mean_of_the_losses_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(14)
    truth = random.integers(0, 3, 500)
    probabilities = random.dirichlet([1, 1, 1], 500)
    assert losses(truth, None, probabilities, np.arange(3)).mean() == pytest.approx(log_loss(truth, probabilities))
    numbers, guesses = random.normal(size=500), random.normal(size=500)
    assert losses(numbers, guesses, None, None).mean() == pytest.approx(mean_squared_error(numbers, guesses))
    words: npt.NDArray[np.str_] = np.array(["a", "long word"])
    assert losses(words, np.array(["a", "long"]), None, words).tolist() == [0.0, 1.0]


def test_classes_that_a_model_does_not_know_have_no_chance() -> None:
    known, classes = np.array(["b", "c"]), np.array(["a", "b", "c"])
    assert in_order(np.array([[0.3, 0.7]]), known, classes).tolist() == [[0.0, 0.3, 0.7]]
    assert losses(np.array(["a"]), None, np.array([[0.0, 0.3, 0.7]]), classes)[0] > 30
