"""The drift of a window from the reference: which columns changed by an effect that matters and is real.

A check warns when its effect passes a threshold and is significant too. A p-value alone would call a harmless shift of
0.02 standard deviations drift in a large window, an effect alone would call the noise of a small window so. All p-values
of an audit are judged together (Benjamini-Hochberg). Nothing that a column holds or lacks aborts an audit.

No ML library is imported here, but by `exact_ks` when it is called.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from monitoring.checks import Check, Thresholds, checks_of
from monitoring.profile import Profile
from monitoring.schema import ProfileSchema
from monitoring.statistics import discoveries
from monitoring.values import Floats
from registry.signature import ColumnType

Status = Literal["ok", "warn", "critical", "advisory", "insufficient_data"]

DEFAULT = Thresholds()


class ColumnDrift(BaseModel):
    """One check of one column; (`name`, `statistic`) is unique in a `Drift`. Without a `value` the check was impossible."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: ColumnType
    statistic: str
    value: float | None
    warn: float
    critical: float
    p_value: float | None
    significant: bool
    status: Status
    details: dict[str, Any]


class Drift(BaseModel):
    """The drift of `rows` rows that were scored and `errored` rows that were not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    errored: int
    status: Status
    columns: list[ColumnDrift]


def drift(schema: ProfileSchema, reference: Profile, current: Profile, thresholds: Thresholds = DEFAULT) -> Drift:
    """Compare the profile of a window with that of the reference.

    The whole is critical when a check is; it warns when the prediction or its probability warns, or at least two
    columns and a fifth of all do. With 200 to 499 rows all of that is `advisory`, with less `insufficient_data`; the
    same holds for each check by the cells that it rests on.

    Raises:
        ValueError: a profile is of another schema.
    """
    if {reference.schema.digest, current.schema.digest} != {schema.digest}:
        raise ValueError("both profiles must be of the schema; profile the rows again with it")
    found = [
        (column, check)
        for column in schema.columns
        for check in checks_of(reference.column(column.name), current.column(column.name), thresholds)
    ]
    judged = [check.p_value if check.cells >= thresholds.advisory_rows else None for _, check in found]
    significant = discoveries(judged, thresholds.false_discovery_rate)
    results = [
        ColumnDrift(
            name=column.name,
            type=column.type,
            statistic=check.statistic,
            value=check.value,
            warn=check.limits.warn,
            critical=check.limits.critical,
            p_value=check.p_value,
            significant=real,
            status=_status(check, real, thresholds),
            details=check.details,
        )
        for (column, check), real in zip(found, significant, strict=True)
    ]
    status = _whole(schema, results, current.rows + current.errored, thresholds)
    return Drift(rows=current.rows, errored=current.errored, status=status, columns=results)


def exact_ks(reference: Floats, current: Floats) -> tuple[float, float]:
    """Kolmogorov-Smirnov D of the values themselves, (n,) and (m,), and its asymptotic p-value, both by SciPy."""
    from scipy.stats import ks_2samp  # noqa: PLC0415 - costs a second, and the API's image has none

    found = ks_2samp(reference, current, method="asymp")
    return float(found.statistic), float(found.pvalue)


def _status(check: Check, significant: bool, thresholds: Thresholds) -> Status:
    if check.value is None or check.cells < thresholds.advisory_rows:
        return "insufficient_data"
    if not significant or check.value < check.limits.warn:
        return "ok"
    if check.cells < thresholds.rows:
        return "advisory"
    return "critical" if check.value >= check.limits.critical else "warn"


def _whole(schema: ProfileSchema, results: list[ColumnDrift], rows: int, thresholds: Thresholds) -> Status:
    if rows < thresholds.advisory_rows:
        return "insufficient_data"
    if rows < thresholds.rows:
        return "advisory" if any(result.status == "advisory" for result in results) else "ok"
    if any(result.status == "critical" for result in results):
        return "critical"
    warning = {result.name for result in results if result.status == "warn"}
    outputs = {column.name for column in schema.columns if column.input is None}
    enough = max(thresholds.warning_columns, thresholds.warning_share * len(schema.columns))
    return "warn" if warning & outputs or len(warning) >= enough else "ok"
