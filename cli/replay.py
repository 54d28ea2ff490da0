"""The demo's replay of a year: month after month is scored, its labels come late, and audits judge both."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cli.audits import STYLES
from examples.flights.data import COLUMNS
from examples.flights.months import Month, write_months
from scorehouse_client import Client

# How much accuracy may fall below that of the reference.
TOLERANCE = 0.03


@dataclass(frozen=True)
class Audited:
    """What was found of one month: both documents, the estimate from before its labels, and what alerts did."""

    month: Month
    drift: dict[str, Any]
    estimate: float | None
    accuracy: dict[str, Any]
    firing: Sequence[str]


def replay(client: Client, model: str, numbers: Sequence[int], folder: Path) -> list[Audited]:
    """Score each of the months as it was, feed back its labels, and audit it."""
    client.set_audit_policy(model, tolerance=TOLERANCE)
    found = []
    for month in write_months(numbers, folder):
        scored = folder / f"2013-{month.number:02}-scored.csv"
        client.score_file(
            str(month.inputs), model, str(scored), key_column=COLUMNS.key, as_of=f"{month.middle}T00:00:00Z"
        )
        days = f"{calendar.monthrange(2013, month.number)[1]}d"
        end = f"{month.end}T00:00:00Z"
        drift = client.audit(model, "drift", window=days, end=end, alert=True)
        before = client.audit(model, "accuracy", window=days, end=end)
        client.upload_labels(str(month.labels), model)
        accuracy = client.audit(model, "accuracy", window=days, end=end, alert=True)
        firing = [told(alert) for alert in client.alerts(model, "firing")]
        estimate = before["estimated"].get("accuracy", {}).get("value")
        found.append(Audited(month, drift, estimate, accuracy, firing))
    return found


def told(alert: dict[str, Any]) -> str:
    """An alert in a word or two."""
    return f"{alert['column']} {alert['check']}" if alert["column"] else str(alert["check"])


def table(found: Sequence[Audited]) -> Table:
    """The year as a person reads it."""
    shown = Table(title="2013, month by month", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("month", "late", "inputs", "most", "expected", "accuracy", "judged", "alert"):
        shown.add_column(name, no_wrap=True)
    for each in found:
        metric = each.accuracy["metrics"]["accuracy"]
        shown.add_row(
            calendar.month_abbr[each.month.number],
            f"{each.month.late:.0%}",
            _status(each.drift["status"]),
            next(iter(drifting(each.drift)), ""),
            "" if each.estimate is None else f"{each.estimate:.1%}",
            f"{metric['value']:.1%} ± {(metric['high'] - metric['low']) / 2:.1%}",
            _status(judgement(each.accuracy)),
            "fires" if "accuracy" in each.firing else "",
        )
    return shown


def judgement(document: dict[str, Any]) -> str:
    """Of the accuracy alone: other figures of the audit may be worse."""
    return str(document["worse"].get("accuracy", "ok"))


def drifting(document: dict[str, Any]) -> list[str]:
    """The columns that drift, by their name, the worst first."""
    bad = [column for column in document["columns"] if column["status"] in ("warn", "critical")]
    bad.sort(key=lambda column: (column["status"] != "critical", -column["value"] / column["warn"]))
    return list(dict.fromkeys(column["name"] for column in bad))


def _status(status: str) -> Text:
    return Text(status.replace("_", " "), style=STYLES.get(status, ""))
