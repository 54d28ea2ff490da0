"""The drift of a data set as a whole, as one observation for the alerts.

It is bad when the prediction drifts, when a column is critical, or when at least max(2, 20 %) of the input columns warn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from monitoring.alerts import Observation

#: The columns of an audit that are the model's answer; the others are its inputs.
ANSWERS = frozenset({"prediction", "probability"})
WARN_SHARE = 0.2
WARN_COLUMNS = 2


class DriftResult(Protocol):
    """One result of a drift audit; a column may have several, such as a distance and a null rate."""

    @property
    def name(self) -> str: ...
    @property
    def statistic(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def warn(self) -> float | None: ...
    @property
    def critical(self) -> float | None: ...
    @property
    def status(self) -> str: ...


def dataset_observation(results: Sequence[DriftResult], window_start: datetime) -> Observation:
    """The observation of check "dataset" and column "": critical when any column is, else by the rule above.

    Only columns that were judged count. `value` says how near the nearest of the three conditions is, and 1 (`warn`)
    is met: the prediction's value in units of its warn threshold, the largest value in units of its critical threshold,
    the max(2, 20 %)-th largest in units of its warn threshold. So columns that sit on their thresholds keep an alert
    from coming and going, which a count of columns that warn would not.
    """
    judged = [result for result in results if result.status in ("ok", "warn", "critical")]
    if not judged:
        status = "advisory" if any(result.status == "advisory" for result in results) else "insufficient_data"
        return Observation(status, None, 1.0, None, "dataset", window_start)
    answers = [result for result in judged if result.name in ANSWERS]
    columns: dict[str, float] = {}
    for result in judged:
        if result.name not in ANSWERS:
            columns[result.name] = max(columns.get(result.name, 0.0), _of_warn(result))
    needed = max(WARN_COLUMNS, math.ceil(WARN_SHARE * len(columns)))
    nearest = sorted(columns.values(), reverse=True)[needed - 1 : needed]
    value = max(0.0, *nearest, *map(_of_warn, answers), *map(_of_critical, judged))
    return Observation(_status(judged, answers, needed), value, 1.0, None, "dataset", window_start)


def _status(judged: Sequence[DriftResult], answers: Sequence[DriftResult], needed: int) -> str:
    if any(result.status == "critical" for result in judged):
        return "critical"
    warning = {result.name for result in judged if result.status == "warn" and result.name not in ANSWERS}
    answer_drifts = any(result.status == "warn" for result in answers)
    return "warn" if answer_drifts or len(warning) >= needed else "ok"


def _of_warn(result: DriftResult) -> float:
    return _in_units(result.value, result.warn, met=result.status != "ok")


def _of_critical(result: DriftResult) -> float:
    return _in_units(result.value, result.critical, met=result.status == "critical")


def _in_units(value: float | None, threshold: float | None, *, met: bool) -> float:
    """A value in units of its threshold, at least 1 where the audit says that it is met (a missing column has none)."""
    if value is None or not threshold:
        return float(met)
    return max(value / threshold, float(met))
