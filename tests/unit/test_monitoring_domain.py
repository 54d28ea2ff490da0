"""The domain classifier finds what no column shows alone, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from profiled import signature_of, table_of
from threadpoolctl import threadpool_limits

from monitoring.domain import CRITICAL, WARN, separability

TYPES: dict[str, Any] = {
    "amount": "number", "visits": "integer", "segment": "category", "city": "category", "active": "boolean",
    "note": "text", "since": "timestamp", "gone": "number", "void": "category",
}  # fmt: skip
START = datetime(2013, 1, 1, tzinfo=UTC).replace(tzinfo=None)
NEVER = [None]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker; on a busy machine more are ten times slower."""
    with threadpool_limits(1):
        yield


def rows(count: int, seed: int, *, joint: bool = False, start: datetime = START) -> pa.Table:
    """Of every type, with nulls, and with more cities and notes than rows; `joint` rows have amounts that rise with visits."""
    random = np.random.default_rng(seed)
    amount, visits = random.normal(50, 20, count), random.integers(0, 30, count)
    if joint:
        amount, visits = np.sort(amount), np.sort(visits)
    holes = random.random(count) < 0.1
    cells = {
        "amount": [None if hole else value for value, hole in zip(amount.tolist(), holes, strict=True)],
        "visits": visits.tolist(),
        "segment": random.choice(np.array(["gold", "new", None], object), count).tolist(),
        "city": [f"city {value}" for value in random.integers(0, 10**9, count)],
        "active": random.choice(np.array([True, False, None], object), count).tolist(),
        "note": [f"note {value}" for value in random.integers(0, 10**9, count)],
        "since": [start + timedelta(minutes=int(value)) for value in random.integers(0, 10**6, count)],
        "gone": NEVER * count,
        "void": NEVER * count,
    }
    return table_of(TYPES, cells)


def test_rows_of_one_origin_cannot_be_told_apart() -> None:
    value, details = separability(rows(1500, 1), rows(1500, 2), signature_of(TYPES))
    assert 0.45 < value < WARN
    assert details == {}


def test_rows_are_not_told_apart_by_when_they_are() -> None:
    later = rows(1500, 2, start=START + timedelta(days=5000))
    value, _ = separability(rows(1500, 1), later, signature_of(TYPES))
    assert value < WARN


def test_columns_that_no_longer_go_together_are_found_and_named() -> None:
    value, details = separability(rows(1500, 1), rows(1500, 2, joint=True), signature_of(TYPES))
    assert value > CRITICAL
    assert set(list(details["columns"])[:2]) == {"amount", "visits"}


def test_a_column_that_became_null_is_found() -> None:
    window = rows(800, 3).set_column(0, "amount", pa.array(NEVER * 800, pa.float64()))
    value, details = separability(rows(800, 1), window, signature_of(TYPES))
    assert value > 0.9
    assert next(iter(details["columns"])) == "amount"
