"""What the alerts hear of an audit: one observation per column and check, and one of the data set as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from monitoring.alerts import Observation
from monitoring.dataset_alert import DriftResult, dataset_observation

# Figures that a lower value makes worse, and those that a higher value does.
_WATCHED = {"accuracy": 1, "f1": 1, "roc_auc": 1, "rmse": -1, "mae": -1}
_JUDGED = ("ok", "warn", "critical")


def drift_observations(results: Sequence[DriftResult], window_start: datetime) -> list[Observation]:
    """Of a drift audit's results, and of the data set."""
    return [*check_observations(results, window_start), dataset_observation(results, window_start)]


def check_observations(results: Sequence[DriftResult], window_start: datetime) -> list[Observation]:
    """Of each result by itself: all that a domain audit tells, since the data set's alert is the drift audit's."""
    return [
        Observation(
            result.status, result.value, result.warn, result.critical, result.statistic, window_start, result.name
        )
        for result in results
    ]


def accuracy_observations(document: dict[str, Any], tolerance: float, window_start: datetime) -> list[Observation]:
    """Of an accuracy audit: how far each figure is worse than the reference's, against the tolerance."""
    found = []
    for name, sign in _WATCHED.items():
        metric, expected = document["metrics"].get(name), (document["reference"] or {}).get(name)
        if metric is None or expected is None or metric["value"] is None:
            continue
        allowed = tolerance if sign > 0 else tolerance * abs(expected)
        worse = max(0.0, sign * (expected - metric["value"]))
        status = document["worse"].get(name, "ok") if document["status"] in _JUDGED else document["status"]
        found.append(Observation(status, worse, allowed, 2 * allowed, name, window_start))
    return found
