"""One audit as a page of HTML that needs nothing else: no script, no file beside it, light and dark.

It is written from the documents of the audits, as the API answers them, for a browser or to be mailed on.
Names of columns and categories are the callers' text: the templates and plots escape all of it, and the page's own policy
lets no script run and nothing be loaded. Needs Jinja2, which comes with Flask.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from monitoring import plots

Document = Mapping[str, Any]

#: More bars than this cannot be told apart, and a page of many columns would weigh megabytes.
MAX_BARS = 32
_DETAIL_CHARS = 300
#: Statuses that have a colour of their own; others are shown by name alone.
_STATUSES = ("critical", "warn", "advisory", "provisional", "insufficient_data", "ok")


@dataclass(frozen=True)
class Distribution:
    """A column in the reference and in the window: counts or shares for each of `labels`.

    `ordered` bins (of numbers) are merged with their neighbours where there are too many, categories into a last one.
    """

    labels: Sequence[str]
    reference: Sequence[float]
    current: Sequence[float]
    ordered: bool = True


def drift_report(
    document: Document, history: Sequence[Document], distributions: Mapping[str, Distribution], note: str = ""
) -> str:
    """The page of a drift audit.

    Args:
        history: documents of other windows, in any order; of two of one window the last counts.
        distributions: by column name; columns without one are shown without that plot.
        note: a sentence for the reader, above all tables.
    """
    series = _statistics(_windows(document, history))
    sections = [
        {
            "name": name or "(all columns together)",
            "results": results,
            "distribution": _distribution_plot(number, name, distributions.get(name)),
            "histories": [_statistic_history(f"h{number}-{turn}", one, series) for turn, one in enumerate(results)],
        }
        for number, (name, results) in enumerate(_by_column(document["columns"]).items())
    ]
    return _render("drift.html", document=document, sections=sections, note=note)


def accuracy_report(document: Document, history: Sequence[Document]) -> str:
    """The page of an accuracy audit; `history` holds documents of other windows, in any order."""
    windows = _windows(document, history)
    measured, estimated, reference = (document.get(part) or {} for part in ("metrics", "estimated", "reference"))
    metrics = [
        {
            "name": name,
            "value": _value(measured.get(name)),
            "low": _bound(measured.get(name), "low"),
            "high": _bound(measured.get(name), "high"),
            "estimated": _value(estimated.get(name)),
            "reference": _value(reference.get(name)),
            "history": _metric_history(f"m{number}", name, _value(reference.get(name)), windows),
        }
        for number, name in enumerate(dict.fromkeys([*measured, *estimated]))
    ]
    versions = [{**row, **(row.get("metrics") or {})} for row in document.get("by_version") or []]
    names = list(dict.fromkeys(name for row in versions for name in row if name != "metrics"))
    return _render("accuracy.html", document=document, metrics=metrics, versions=versions, version_names=names)


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=_shown, badge=_badge)
    return environment.get_template(template).render(**values)


def _windows(document: Document, history: Sequence[Document]) -> list[tuple[datetime, Document]]:
    """Each window once, by its end; of the document's own window the document.

    Ends tell windows apart where starts do not: one that had too few rows reached further back, to where another begins.
    """
    by_end = {datetime.fromisoformat(one["window"]["end"]): one for one in [*history, document]}
    return sorted(by_end.items(), key=lambda one: one[0])


def _by_column(results: Iterable[Document]) -> dict[str, list[Document]]:
    """The results of each column, the worst columns first."""
    columns: dict[str, list[Document]] = {}
    for result in results:
        columns.setdefault(result["name"], []).append(result)
    return dict(sorted(columns.items(), key=lambda one: min(_rank(result["status"]) for result in one[1])))


def _rank(status: str) -> int:
    return _STATUSES.index(status) if status in _STATUSES else len(_STATUSES)


def _distribution_plot(number: int, name: str, distribution: Distribution | None) -> Markup | None:
    if distribution is None:
        return None
    labels, reference, current = _merged(distribution)
    return plots.bars(f"d{number}", f"{name}: reference and window", labels, _shares(reference), _shares(current))


def _merged(distribution: Distribution) -> tuple[list[str], list[float], list[float]]:
    """At most MAX_BARS labels, with their counts."""
    rows = list(zip(distribution.labels, distribution.reference, distribution.current, strict=True))
    if len(rows) <= MAX_BARS:
        groups = [[row] for row in rows]
    elif distribution.ordered:
        size = math.ceil(len(rows) / MAX_BARS)
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
    else:
        total, found = sum(distribution.reference) or 1.0, sum(distribution.current) or 1.0
        rows.sort(key=lambda row: row[1] / total + row[2] / found, reverse=True)
        groups = [*([row] for row in rows[: MAX_BARS - 1]), rows[MAX_BARS - 1 :]]
    labels = [_label(group, ordered=distribution.ordered) for group in groups]
    return (
        labels,
        [sum(row[1] for row in group) for group in groups],
        [sum(row[2] for row in group) for group in groups],
    )


def _label(group: Sequence[tuple[str, float, float]], *, ordered: bool) -> str:
    if len(group) == 1:
        return group[0][0]
    return f"{group[0][0]} … {group[-1][0]}" if ordered else f"{len(group)} others"


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts) or 1.0
    return [count / total for count in counts]


def _statistics(windows: Iterable[tuple[datetime, Document]]) -> dict[tuple[str, str], list[plots.Point]]:
    """The values of each statistic of each column, by (name, statistic)."""
    series: dict[tuple[str, str], list[plots.Point]] = {}
    for at, document in windows:
        for result in document["columns"]:
            if (value := _value(result["value"])) is not None:
                series.setdefault((result["name"], result["statistic"]), []).append(plots.Point(at, value))
    return series


def _statistic_history(
    identity: str, result: Document, series: Mapping[tuple[str, str], Sequence[plots.Point]]
) -> Markup:
    points = series.get((result["name"], result["statistic"]), [])
    levels = [plots.Level(kind, line) for kind in ("warn", "critical") if (line := _value(result[kind])) is not None]
    title = f"{result['name']}: {result['statistic']} over the windows"
    return plots.history(identity, title, points, levels, from_zero=True)


def _metric_history(
    identity: str, name: str, reference: float | None, windows: Sequence[tuple[datetime, Document]]
) -> Markup:
    points = [
        plots.Point(at, value, _bound(metric, "low"), _bound(metric, "high"))
        for at, document in windows
        for metric in [(document.get("metrics") or {}).get(name)]
        if (value := _value(metric)) is not None
    ]
    levels = [] if reference is None else [plots.Level("reference", reference)]
    return plots.history(identity, f"{name} over the windows", points, levels, from_zero=False)


def _value(metric: Any) -> float | None:
    """The number of a metric, which is one or an object with a `value`."""
    number = metric.get("value") if isinstance(metric, Mapping) else metric
    return number if isinstance(number, int | float) and math.isfinite(number) else None


def _bound(metric: Any, name: str) -> float | None:
    return _value(metric.get(name)) if isinstance(metric, Mapping) else None


def _shown(value: Any) -> str:
    """A cell of a table: numbers short, nothing as a dash, whatever else as text that does not go on for ever."""
    if isinstance(value, Mapping) and "value" in value:
        value = value["value"]
    match value:
        case None:
            return "\u2013"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case Mapping():
            value = ", ".join(f"{name}: {_shown(each)}" for name, each in value.items())
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _DETAIL_CHARS else f"{text[:_DETAIL_CHARS]}…"


def _badge(status: str) -> Markup:
    kind = status if status in _STATUSES else "other"
    return Markup('<span class="badge {}">{}</span>').format(kind, status.replace("_", " "))
