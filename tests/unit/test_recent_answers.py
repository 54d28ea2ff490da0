"""A row that was just scored is not scored again; what it answers, and what errors, is the same as without that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from registry.parse import parse_ndjson
from registry.parsed import Parsed
from registry.scores import Scores
from registry.scoring import score
from registry.signature import Column, Output, Signature
from registry.sklearn_runtime import SklearnRuntime
from worker.recent import Recent

COLUMNS = [Column(name="a", type="number"), Column(name="b", type="number", nullable=True)]
CLASSES = Output(kind="classification", classes=["no", "yes"], class_type="text", has_probability=True)
SIGNATURE = Signature(columns=COLUMNS, key="id", target=None, frame="object", output=CLASSES)
X, Y = np.array([[0.0, 1], [1, 0], [2, 5], [3, 3]]), np.array(["no", "yes", "no", "yes"])
DIGEST = "sha256:1"


class Counting(SklearnRuntime):
    """Counts the rows it is asked for, and raises on a = 13."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.asked: list[float] = []

    def predict(self, model_input: Any, **options: Any) -> Scores:
        if 13.0 in model_input["a"].tolist():
            raise ValueError("thirteen")
        self.asked += model_input["a"].tolist()
        return super().predict(model_input.fillna(0.0).to_numpy(), **options)


@pytest.fixture
def runtime() -> Counting:
    return Counting(LogisticRegression().fit(X, Y))


def records(*lines: str) -> Parsed:
    data = "".join(f"{line}\n" for line in lines).encode()
    return parse_ndjson(data, signature=SIGNATURE, key_column="id", first_row=1, first_line=1, max_cell_chars=100)


def row(a: Any, b: Any = 1, key: str = "k") -> str:
    return f'{{"id": "{key}", "a": {a}, "b": {b}}}'


def test_only_what_is_new_is_asked_of_the_model(runtime: Counting) -> None:
    recent = Recent(10)
    recent.score(runtime, records(row(1.5), row(2)), SIGNATURE, DIGEST)
    parsed = records(row(3, key="x"), row("1.50", key="y"), row(4, "null", key="z"), row(2, key="w"))
    found = recent.score(runtime, parsed, SIGNATURE, DIGEST)
    assert runtime.asked == [1.5, 2.0, 3.0, 4.0]
    expected = score(runtime, parsed, SIGNATURE)
    assert found.rows.tolist() == expected.rows.tolist() == [1, 2, 3, 4]
    assert found.keys.to_pylist() == ["x", "y", "z", "w"]
    assert found.prediction.tolist() == expected.prediction.tolist()
    assert np.allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-15)
    assert recent.counted() == {"cache_hits": 2, "cache_misses": 4}
    assert recent.counted() == {"cache_hits": 0, "cache_misses": 0}


@pytest.mark.parametrize("other", [row("-0.0"), row(0, "null"), row(0, 2)])
def test_what_differs_at_all_is_new(runtime: Counting, other: str) -> None:
    recent = Recent(10)
    recent.score(runtime, records(row(0.0)), SIGNATURE, DIGEST)
    recent.score(runtime, records(other), SIGNATURE, DIGEST)
    assert len(runtime.asked) == 2


def test_another_artefact_has_answers_of_its_own(runtime: Counting) -> None:
    recent = Recent(10)
    for digest in (DIGEST, "sha256:2"):
        recent.score(runtime, records(row(1)), SIGNATURE, digest)
    assert runtime.asked == [1.0, 1.0]


def test_rows_that_err_are_tried_again_each_time(runtime: Counting) -> None:
    recent = Recent(10)
    for _ in range(2):
        found = recent.score(
            runtime, records(row(1), row(13), '{"id": "k", "a": "x", "b": 1}', row(2)), SIGNATURE, DIGEST
        )
        assert found.rows.tolist() == [1, 4]
        assert [(error.row, error.code) for error in found.errors] == [(2, "model_error"), (3, "wrong_type")]
    assert runtime.asked == [1.0, 2.0], "the good rows were asked once, in the first call"


def test_the_oldest_answers_go(runtime: Counting) -> None:
    recent = Recent(2)
    for a in (1, 2, 1, 3, 1, 2):
        recent.score(runtime, records(row(a)), SIGNATURE, DIGEST)
    assert runtime.asked == [1.0, 2.0, 3.0, 2.0]


def test_none_are_kept_if_so_set(runtime: Counting) -> None:
    recent = Recent(0)
    for _ in range(2):
        recent.score(runtime, records(row(1)), SIGNATURE, DIGEST)
    assert runtime.asked == [1.0, 1.0]


def test_numbers_are_remembered_too() -> None:
    runtime = Counting(LinearRegression().fit(X, X[:, 0]))
    signature = SIGNATURE.model_copy(update={"output": Output(kind="regression")})
    recent = Recent(10)
    answers = [recent.score(runtime, records(row(7)), signature, DIGEST).prediction.tolist() for _ in range(2)]
    assert answers[0] == answers[1]
    assert runtime.asked == [7.0]
