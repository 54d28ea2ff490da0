"""The checks of one column: how far a window is from the reference, and how surely, before all p-values are judged.

    ks                             number, integer, timestamp, text (its length), probability
    psi                            category, boolean, class
    changed_share                  instead of these, where the reference holds one value only, or none
    null_rate_difference           null cells and missing values      } of features, as increase of the rate
    type_error_rate_difference     wrong type, or not finite          } over that of the reference
    out_of_range_rate_difference   numbers beyond the reference's     }
    unseen_share                   categories that the reference does not have

Time moves on, so a timestamp is always another one than in the reference: how far is told, and only its nulls and type
errors are judged. Nothing that a column holds or lacks raises here: a check that cannot be made has no value, and the
reason in its details. No ML library is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from monitoring.profile import ColumnProfile
from monitoring.schema import CategoryColumn, NumericColumn
from monitoring.statistics import (
    jensen_shannon,
    ks_distance,
    ks_p_value,
    psi,
    quantiles,
    rate_difference,
    rate_p_value,
    share_p_value,
    super_bins,
    wasserstein,
    wilson,
)

SUPER_BINS = 10
QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.50, "p75": 0.75, "p95": 0.95}
_WITH_RANGE = ("number", "integer", "timestamp")
# Of a timestamp these are told and not judged.
_OF_VALUES = ("ks", "changed_share", "out_of_range_rate_difference")


class Limits(BaseModel):
    """A check warns from `warn` on, and is critical from `critical` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warn: float
    critical: float


class Thresholds(BaseModel):
    """What matters, and how many rows it takes to say so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ks: Limits = Limits(warn=0.10, critical=0.20)
    psi: Limits = Limits(warn=0.10, critical=0.25)
    rate: Limits = Limits(warn=0.01, critical=0.05)
    unseen: Limits = Limits(warn=0.005, critical=0.05)
    changed: Limits = Limits(warn=0.01, critical=0.05)
    false_discovery_rate: float = 0.01
    rows: int = 500
    advisory_rows: int = 200
    unseen_rows: int = 10
    warning_share: float = 0.2
    warning_columns: int = 2


@dataclass(frozen=True)
class Check:
    """`cells`: of the window, on which the check rests; 0 when it could not be made. `p_value` None: nothing to test."""

    statistic: str
    limits: Limits
    value: float | None = None
    p_value: float | None = None
    cells: int = 0
    details: dict[str, Any] = field(default_factory=dict)


def checks_of(reference: ColumnProfile, current: ColumnProfile, thresholds: Thresholds) -> Iterator[Check]:
    for check in _every_check(reference, current, thresholds):
        if reference.column.type == "timestamp" and check.statistic in _OF_VALUES:
            yield replace(check, p_value=None, details={"reason": "time moves on"} | check.details)
        else:
            yield check


def _every_check(reference: ColumnProfile, current: ColumnProfile, thresholds: Thresholds) -> Iterator[Check]:
    column = reference.column
    constant = _is_constant(reference)
    if constant:
        yield _changed(reference, current, thresholds)
    elif isinstance(column, NumericColumn):
        yield _numeric(column, reference, current, thresholds)
    else:
        yield _category(column, reference, current, thresholds)
    if column.input is None:
        return
    yield _rate("null_rate_difference", _nulls(reference), _nulls(current), thresholds)
    yield _rate("type_error_rate_difference", _type_errors(reference), _type_errors(current), thresholds)
    if constant:
        return  # what differs from the constant was counted
    if isinstance(column, CategoryColumn):
        yield _unseen(column, current, thresholds)
    elif column.type in _WITH_RANGE:
        check = _rate("out_of_range_rate_difference", _outside(reference), _outside(current), thresholds)
        check.details.update(below=current.below, above=current.above)
        yield check


# ---- distributions


def _numeric(column: NumericColumn, reference: ColumnProfile, current: ColumnProfile, thresholds: Thresholds) -> Check:
    if not current.values:
        return _impossible("ks", thresholds.ks, "the window has no values")
    value = ks_distance(reference.bins, current.bins)
    area = wasserstein(reference.bins, current.bins, column.edge_array, current.mean - reference.mean)
    details = {
        "values": current.values,
        "reference_values": reference.values,
        "psi": psi(*super_bins(reference.bins, current.bins, SUPER_BINS))[0],
        "wasserstein_per_sigma": _finite(area / reference.deviation) if reference.deviation else None,
        "mean": _finite(current.mean),
        "reference_mean": _finite(reference.mean),
        "quantiles": _quantiles(column, current),
        "reference_quantiles": _quantiles(column, reference),
    }
    p_value = ks_p_value(value, reference.values, current.values)
    return Check("ks", thresholds.ks, value, p_value, current.values, details)


def _quantiles(column: NumericColumn, found: ColumnProfile) -> dict[str, float | None]:
    inner = np.clip(column.edge_array, found.minimum, found.maximum)
    points = np.concatenate([[found.minimum], inner, [found.maximum]])
    values = quantiles(found.bins, points, list(QUANTILES.values()))
    return {name: _finite(value) for name, value in zip(QUANTILES, values, strict=True)}


def _category(
    column: CategoryColumn, reference: ColumnProfile, current: ColumnProfile, thresholds: Thresholds
) -> Check:
    # Unseen words have a check of their own; here they would count twice.
    before, now = reference.bins[: column.unseen], current.bins[: column.unseen]
    if not now.sum():
        return _impossible("psi", thresholds.psi, "the window has no value that the reference has")
    value, p_value = psi(before, now)
    changes = now / now.sum() - before / before.sum()
    details = {
        "values": int(now.sum()),
        "reference_values": int(before.sum()),
        "jensen_shannon": jensen_shannon(before, now),
        "largest_change": float(np.abs(changes).max()),
        "changes": _named(column, changes.tolist()),
    }
    return Check("psi", thresholds.psi, value, p_value, int(now.sum()), details)


def _named(column: CategoryColumn, changes: list[float]) -> dict[str, float]:
    """By category; the rarer ones of the reference together as `(other)`."""
    named = dict(zip(column.categories, changes, strict=False))
    return named | ({"(other)": changes[-1]} if column.others else {})


# ---- shares and rates


def _is_constant(reference: ColumnProfile) -> bool:
    return bool(np.count_nonzero(reference.bins) <= 1 and reference.minimum >= reference.maximum)


def _changed(reference: ColumnProfile, current: ColumnProfile, thresholds: Thresholds) -> Check:
    """How many differ from the one value of the reference; from its nulls, when it has no value at all."""
    kept = int(current.bins[np.argmax(reference.bins)]) if reference.values else 0
    total = current.values if reference.values else current.cells
    if not total:
        return _impossible("changed_share", thresholds.changed, "the window has no values")
    details = {"reference_value": _only_value(reference), "unseen_values": list(current.unseen_values)}
    return _share("changed_share", current.values - kept, total, thresholds.changed, details)


def _only_value(reference: ColumnProfile) -> float | str | None:
    if not reference.values:
        return None
    column = reference.column
    if isinstance(column, NumericColumn):
        return reference.minimum
    return column.categories[int(np.argmax(reference.bins))]


def _unseen(column: CategoryColumn, current: ColumnProfile, thresholds: Thresholds) -> Check:
    if not current.values:
        return _impossible("unseen_share", thresholds.unseen, "the window has no values")
    details = {"unseen_values": list(current.unseen_values)}
    check = _share("unseen_share", int(current.bins[column.unseen]), current.values, thresholds.unseen, details)
    # A handful of strange words is no evidence, however small the window.
    return replace(check, p_value=None) if check.details["count"] < thresholds.unseen_rows else check


def _share(statistic: str, count: int, total: int, limits: Limits, details: dict[str, Any]) -> Check:
    low, high = wilson(count, total)
    p_value = share_p_value(count, total, limits.warn) if count else None
    found = {"count": count, "values": total, "low": low, "high": high}
    return Check(statistic, limits, count / total, p_value, total, found | details)


def _rate(statistic: str, before: tuple[int, int], now: tuple[int, int], thresholds: Thresholds) -> Check:
    """Rates are given as (count, total)."""
    if not (before[1] and now[1]):
        where = "reference" if now[1] else "window"
        return _impossible(statistic, thresholds.rate, f"the {where} has no values")
    value, low, high = rate_difference(before, now)
    details = {
        "count": now[0],
        "cells": now[1],
        "rate": now[0] / now[1],
        "reference_rate": before[0] / before[1],
        "low": low,
        "high": high,
    }
    return Check(statistic, thresholds.rate, value, rate_p_value(before, now), now[1], details)


def _nulls(found: ColumnProfile) -> tuple[int, int]:
    return found.nulls + found.missing, found.cells


def _type_errors(found: ColumnProfile) -> tuple[int, int]:
    return found.type_errors + found.non_finite, found.cells


def _outside(found: ColumnProfile) -> tuple[int, int]:
    return found.below + found.above, found.values


def _impossible(statistic: str, limits: Limits, reason: str) -> Check:
    return Check(statistic, limits, details={"reason": reason})


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
