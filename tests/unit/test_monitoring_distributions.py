"""The bars of a report hold every cell of the reference and of the window once, and say which values they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from profiled import OneColumn, error

from monitoring.distributions import distributions
from monitoring.profile import empty
from monitoring.report import MAX_BARS, Distribution

RANDOM = np.random.default_rng(41)


def compared(type: str, reference: Sequence[Any] | np.ndarray, window: Sequence[Any] | np.ndarray) -> Distribution:
    column = OneColumn(type, reference)
    return distributions(column.reference, column.profile(window))["x"]


def rows(found: Distribution) -> dict[str, tuple[float, float]]:
    assert len(set(found.labels)) == len(found.labels)
    return {
        label: (before, now) for label, before, now in zip(found.labels, found.reference, found.current, strict=True)
    }


def test_few_values_have_a_bar_each_with_their_own_name() -> None:
    found = compared("integer", [1, 1, 2, 2, 2, 5], [1, 2, 2, 5, 5, 9])
    assert rows(found) == {"1": (2, 1), "2": (3, 2), "5": (1, 2), "6 to 9": (0, 1)}
    assert found.ordered


def test_a_value_between_those_of_the_reference_and_one_below_them_are_told() -> None:
    found = compared("number", [1.5, 2.5, 8.0], [-4.25, 2.5, 3.75])
    assert rows(found) == {"-4.25 to 1.5": (0, 1), "1.5": (1, 0), "2.5": (1, 1), "2.5 to 8": (0, 1), "8": (1, 0)}


def test_zero_is_called_zero() -> None:
    found = compared("number", [0.0, 0.0, 0.5, -2.0], [0.0, -1.0, 0.25])
    assert list(rows(found)) == ["-2", "-2 to 0", "0", "0 to 0.5", "0.5"]


@pytest.mark.parametrize("spread", [1.0, 1e-9, 1e9])
def test_many_values_are_in_few_bars_that_are_about_equally_full(spread: float) -> None:
    reference, window = RANDOM.normal(0, spread, 5000), RANDOM.normal(0, spread, 3000)
    found = compared("number", reference, window)
    assert 20 <= len(found.labels) <= MAX_BARS
    assert (sum(found.reference), sum(found.current)) == (5000, 3000)
    within = [before / 5000 for before in found.reference if before]
    assert max(within) < 2.5 / MAX_BARS


def test_a_bar_counts_the_values_that_its_label_says() -> None:
    reference = RANDOM.integers(0, 1000, 4000)
    window = RANDOM.integers(500, 1500, 3000)
    found = compared("integer", reference, window)
    for label, (before, now) in rows(found).items():
        low, _, high = label.partition(" to ")
        low, high = int(low), int(high or low)
        assert before == ((reference >= low) & (reference <= high)).sum()
        assert now == ((window >= low) & (window <= high)).sum()
    assert found.labels[-1] == f"{reference.max() + 1} to {window.max()}"
    assert found.reference[-1] == 0


def test_what_is_no_value_has_a_bar_too() -> None:
    column = OneColumn("number", [1.0, 2.0, 3.0])
    errors = [error("x", "missing_value"), error("x", "wrong_type"), error("x", "non_finite"), error(None, "too_long")]
    found = distributions(column.reference, column.profile([1.0, None, None], errors))["x"]
    assert rows(found) == {"1": (1, 1), "2": (1, 0), "3": (1, 0), "(null)": (0, 3), "(unreadable)": (0, 2)}


def test_categories_keep_their_names_and_unseen_words_are_one_bar() -> None:
    found = compared("category", ["LAX"] * 3 + ["SFO"] * 2 + [None], ["SFO", "platinum", "gold", "LAX"])
    assert rows(found) == {"LAX": (3, 1), "SFO": (2, 1), "(unseen)": (0, 2), "(null)": (1, 0)}
    assert not found.ordered


@pytest.mark.parametrize("words", [40, 300], ids=["some", "more than the schema names"])
def test_of_many_categories_those_that_matter_are_named(words: int) -> None:
    reference = [f"w{place:03}" for place in range(words) for _ in range(words - place)]
    window = [f"w{place:03}" for place in range(words)] + ["w035"] * 500 + ["new"] * 7
    found = compared("category", reference, window)
    assert len(found.labels) <= MAX_BARS
    assert "w035" in found.labels, "rare in the reference, and frequent in the window"
    assert found.labels[0] == "w000"
    others = f"({words - len(found.labels) + 2} others)"
    assert found.labels[-2:] == [others, "(unseen)"]
    assert rows(found)["(unseen)"] == (0, 7)
    assert (sum(found.reference), sum(found.current)) == (len(reference), len(window))


def test_a_long_word_is_cut() -> None:
    (label, _) = compared("category", ["x" * 1000, "y"], ["y"]).labels
    assert len(label) == 80


def test_times_and_lengths_of_texts_are_written_as_such() -> None:
    start = datetime(2013, 7, 1, 12, tzinfo=UTC).replace(tzinfo=None)
    moments = [start + timedelta(hours=hour) for hour in range(500)]
    found = compared("timestamp", moments, moments[:10])
    assert found.labels[0].startswith("2013-07-01 12:00 to 2013-07-0")
    assert found.labels[-1].endswith("2013-07-22 07:00")
    assert rows(compared("text", ["a", "bcd", "xyz"], ["éé"])) == {
        "1 characters": (1, 0), "2 characters": (0, 1), "3 characters": (2, 0),
    }  # fmt: skip


def test_the_outputs_of_the_model_have_theirs() -> None:
    column = OneColumn("number", RANDOM.normal(size=1000))
    found = distributions(column.reference, column.profile(RANDOM.normal(size=400)))
    assert list(found) == ["x", "prediction", "probability"]
    assert found["prediction"].labels == ["0", "1"]
    assert sum(found["probability"].current) == 400
    assert len(found["probability"].labels) <= MAX_BARS


@pytest.mark.parametrize("type", ["number", "category", "integer", "text"])
def test_nothing_at_all_is_no_error(type: str) -> None:
    column = OneColumn(type, [None, None])
    assert rows(distributions(column.reference, empty(column.schema))["x"]) == {"(null)": (2, 0)}
    assert sum(rows(distributions(empty(column.schema), empty(column.schema))["x"]).values(), ()) == ()


def test_the_largest_numbers_are_no_error() -> None:
    largest = float(np.finfo(np.float64).max)
    assert sum(compared("number", [-1e300, 0.0, 1e300], [largest, 1e300, -1e-300]).current) == 3
    assert sum(compared("integer", [-1e300, 0.0, 1e300], [1e200]).current) == 1
