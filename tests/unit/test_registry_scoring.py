"""One bad row costs one row error, never its neighbours, and a broken model costs a bounded number of calls."""

from __future__ import annotations

import math

import numpy as np
import pytest

from registry.parse import parse_csv
from registry.runtime import SklearnRuntime
from registry.scoring import HOPELESS_CALLS, score
from registry.signature import Column, Output, Signature

SIGNATURE = Signature(
    columns=[Column(name="n", type="number", nullable=True)],
    output=Output(kind="classification", classes=[0, 1], class_type="integer", positive=1, has_probability=True),
)


class Fragile:
    """Raises when a row above 1000 is among those to score, and answers NaN for null."""

    classes_ = np.array([0, 1])

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, rows):
        return (rows["n"].to_numpy() > 0).astype(int)

    def predict_proba(self, rows):
        values = rows["n"].to_numpy()
        self.calls.append(len(values))
        if (values > 1000).any():
            raise KeyError("too large for me")
        positive = 1 / (1 + np.exp(-values))
        return np.column_stack([1 - positive, positive])


class OutOfTimeError(Exception):
    pass


def parsed_chunk(values, first_row: int = 1):
    data = "".join(f"{value},k{index}\n" for index, value in enumerate(values)).encode()
    return parse_csv(
        data, header=["n", "id"], delimiter=",", signature=SIGNATURE, key_column="id",
        first_row=first_row, first_line=first_row + 1, max_cell_chars=100,
    )  # fmt: skip


def test_a_good_chunk_costs_one_call():
    model = Fragile()
    scored = score(SklearnRuntime(model), parsed_chunk(range(-500, 500)), SIGNATURE)
    assert model.calls == [1000]
    assert scored.rows.tolist() == list(range(1, 1001))
    assert scored.prediction.tolist() == [0] * 501 + [1] * 499
    assert scored.probabilities.shape == (1000, 2)
    assert scored.errors == []


@pytest.mark.parametrize("bad", [[0], [999], [500], [3, 4, 5], [0, 250, 500, 750, 999], range(0, 1000, 50)])
def test_rows_that_make_the_model_raise_are_found(bad):
    values = [5000 if at in set(bad) else at - 500 for at in range(1000)]
    model = Fragile()
    scored = score(SklearnRuntime(model), parsed_chunk(values, first_row=7), SIGNATURE)
    assert [error.row for error in scored.errors] == [at + 7 for at in bad]
    assert {error.code for error in scored.errors} == {"model_error"}
    first = scored.errors[0]
    assert (first.line, first.key, first.column) == (bad[0] + 8, f"k{bad[0]}", None)
    assert first.raw == f"5000,k{bad[0]}"
    assert "KeyError" in first.message
    good = [at for at in range(1000) if at not in set(bad)]
    assert scored.rows.tolist() == [at + 7 for at in good]
    assert scored.keys.to_pylist() == [f"k{at}" for at in good]
    alone = score(SklearnRuntime(Fragile()), parsed_chunk([at - 500 for at in good]), SIGNATURE)
    assert np.array_equal(scored.probabilities, alone.probabilities)
    assert np.array_equal(scored.prediction, alone.prediction)
    assert len(model.calls) <= 1 + 2 * len(bad) * math.ceil(math.log2(1000))


def test_an_answer_that_is_not_finite_is_an_error_of_its_row():
    scored = score(SklearnRuntime(Fragile()), parsed_chunk([1, "", 3]), SIGNATURE)
    assert scored.rows.tolist() == [1, 3]
    assert scored.keys.to_pylist() == ["k0", "k2"]
    assert [(error.row, error.code, error.raw) for error in scored.errors] == [(2, "model_error", ",k1")]
    assert "not finite" in scored.errors[0].message


def test_errors_of_parsing_and_of_the_model_come_in_order():
    scored = score(SklearnRuntime(Fragile()), parsed_chunk([1, 2000, "x", "", 5]), SIGNATURE)
    assert [(error.row, error.code) for error in scored.errors] == [
        (2, "model_error"), (3, "wrong_type"), (4, "model_error"),
    ]  # fmt: skip
    assert scored.rows.tolist() == [1, 5]


def test_a_model_that_always_raises_is_given_up_soon():
    model = Fragile()
    scored = score(SklearnRuntime(model), parsed_chunk([2000] * 5000), SIGNATURE)
    assert len(model.calls) == HOPELESS_CALLS
    assert len(scored.errors) == 5000
    assert len(scored.rows) == len(scored.prediction) == 0
    assert scored.probabilities.shape == (0, 2)
    assert "given up" in scored.errors[-1].message
    assert "too large for me" in scored.errors[-1].message


def test_a_spent_budget_is_told_and_leaves_no_row_out():
    model = Fragile()
    scored = score(SklearnRuntime(model), parsed_chunk([1, 2000] * 500), SIGNATURE, max_calls=100)
    assert len(model.calls) == 100
    assert sorted([*scored.rows.tolist(), *(error.row for error in scored.errors)]) == list(range(1, 1001))
    assert 0 < len(scored.rows) < 500
    assert "after 100 calls" in scored.errors[-1].message
    assert "retry" in scored.errors[-1].message


def test_no_call_begins_after_the_time():
    model = Fragile()
    scored = score(SklearnRuntime(model), parsed_chunk([1, 2000] * 500), SIGNATURE, max_seconds=0)
    assert len(model.calls) == 1
    assert len(scored.errors) == 1000


def test_a_fatal_exception_goes_through():
    class Slow(Fragile):
        def predict_proba(self, rows):
            raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        score(SklearnRuntime(Slow()), parsed_chunk([1, 2]), SIGNATURE, fatal=(OutOfTimeError,))
    assert len(score(SklearnRuntime(Slow()), parsed_chunk([1, 2]), SIGNATURE).errors) == 2


def test_an_answer_of_the_wrong_length_is_an_error():
    class Short(Fragile):
        def predict_proba(self, rows):
            return super().predict_proba(rows)[:1]

    scored = score(SklearnRuntime(Short()), parsed_chunk([1, 2, 3]), SIGNATURE)
    assert scored.rows.tolist() == [1, 2, 3]  # each alone, it answers one for one


def test_an_empty_chunk_calls_nothing():
    model = Fragile()
    scored = score(SklearnRuntime(model), parsed_chunk([]), SIGNATURE)
    assert model.calls == []
    assert len(scored.rows) == len(scored.prediction) == 0
