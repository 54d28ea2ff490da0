from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from monitoring.alerts import AlertState, step
from monitoring.dataset_alert import dataset_observation

START = datetime(2025, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Result:
    name: str
    value: float | None
    status: str
    statistic: str = "ks"
    warn: float | None = 0.10
    critical: float | None = 0.20


def columns(ok: int, warn: int = 0, *others: Result) -> list[Result]:
    good = [Result(f"a{number}", 0.02, "ok") for number in range(ok)]
    return [*good, *(Result(f"b{number}", 0.15, "warn") for number in range(warn)), *others]


@pytest.mark.parametrize(
    ("results", "status"),
    [
        (columns(5), "ok"),
        (columns(4, 1), "ok"),
        (columns(3, 2), "warn"),
        (columns(17, 3), "ok"),
        (columns(16, 4), "warn"),
        (columns(18, 4), "ok"),  # 4 of 22 are less than 20 %
        (columns(1, 1), "ok"),
        (columns(20, 0, Result("z", 0.3, "critical")), "critical"),
        (columns(20, 0, Result("prediction", 0.15, "warn")), "warn"),
        (columns(20, 0, Result("probability", 0.15, "warn")), "warn"),
        (columns(20, 0, Result("prediction", 0.05, "warn")), "warn"),
        (columns(20, 0, Result("prediction", 0.25, "critical")), "critical"),
        (columns(20, 0, Result("gone", None, "critical", "missing", None, None)), "critical"),
        (columns(0, 0, Result("prediction", 0.02, "ok")), "ok"),
    ],
)
def test_the_rule(results: list[Result], status: str) -> None:
    observation = dataset_observation(results, START)
    assert (observation.column, observation.check, observation.window_start) == ("", "dataset", START)
    assert observation.status == status
    assert observation.value is not None
    assert (observation.value >= 1) == (status != "ok")


def test_a_column_that_warns_for_two_reasons_is_one_column() -> None:
    twice = [Result("a", 0.15, "warn"), Result("a", 0.02, "warn", "null_rate_difference", 0.01, 0.05)]
    assert dataset_observation([*twice, *columns(8)], START).status == "ok"


def test_columns_that_were_not_judged_do_not_count() -> None:
    unjudged = [Result(f"u{number}", None, "insufficient_data") for number in range(30)]
    assert dataset_observation([*columns(3, 2), *unjudged], START).status == "warn"
    assert dataset_observation(unjudged, START).status == "insufficient_data"
    assert dataset_observation([*unjudged, Result("a", 0.5, "advisory")], START).status == "advisory"
    assert dataset_observation([], START).status == "insufficient_data"


def test_far_from_all_thresholds_is_clear_and_near_them_is_not() -> None:
    assert dataset_observation(columns(20), START).clear
    near = [Result("x", 0.095, "ok"), Result("y", 0.095, "ok")]
    assert dataset_observation([*columns(3), *near], START).value == pytest.approx(0.95)
    assert not dataset_observation([*columns(3), *near], START).clear
    assert not dataset_observation(columns(20, 0, Result("prediction", 0.09, "ok")), START).clear


def test_a_prediction_on_its_threshold_is_told_of_once() -> None:
    alert, told = AlertState(), []
    for hour, value in enumerate(np.random.default_rng(5).normal(0.10, 0.005, 200)):
        prediction = Result("prediction", float(value), "warn" if value >= 0.10 else "ok")
        start = START + timedelta(hours=hour)
        alert, transition = step(alert, dataset_observation([*columns(9), prediction], start), start)
        told += [transition.state] if transition and transition.notifies else []
    assert told == ["firing"]
