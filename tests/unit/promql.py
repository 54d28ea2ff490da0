"""What a PromQL expression asks for: series, and the labels it selects, groups or shows. A reader, not a parser:
promtool parses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from monitoring.metric_names import METRICS

# Of Prometheus itself: whether a target answered, and what every scraped series carries.
OWN_SERIES = {"up"}
OWN_LABELS = {"job", "instance"}
OPERATORS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}

_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)?\s*\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_NAME = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")


@dataclass(frozen=True)
class Asked:
    """The series of an expression, the labels matched on each, and the labels named in its groupings."""

    series: frozenset[str]
    matched: frozenset[tuple[str, str]]
    grouped: frozenset[str]


def read(expression: str) -> Asked:
    bare = _STRING.sub("", re.sub(r"\[[^\]]*\]", "", expression))
    matched = {(name, label) for name, inside in _SELECTOR.findall(bare) for label in _MATCHER.findall(inside)}
    grouped = {label for inside in _GROUPING.findall(bare) for label in re.findall(r"\w+", inside)}
    rest = _GROUPING.sub(" ", re.sub(r"\{[^}]*\}", " ", bare))
    series = set(_NAME.findall(re.sub(r"\boffset\s+\w+", " ", rest))) - OPERATORS
    return Asked(frozenset(series), frozenset(matched), frozenset(grouped))


def labels_of(series: str, recorded: dict[str, str]) -> set[str] | None:
    """The labels that a series has, None when there is no such series; `recorded` maps recorded names to expressions."""
    if series in OWN_SERIES:
        return set(OWN_LABELS)
    if series in recorded:
        level = series.split(":", maxsplit=1)[0]
        return {label for label in _labels_within(recorded[series], recorded) if label in _level(level)} | {"job"}
    for suffix, more in (("", set()), ("_bucket", {"le"}), ("_sum", set()), ("_count", set())):
        name = series.removesuffix(suffix) if suffix else series
        metric = METRICS.get(name)
        if metric and series.endswith(suffix) and (metric.kind == "histogram") == bool(suffix):
            return {*metric.labels, *OWN_LABELS, *more}
    return None


def faults(expression: str, recorded: dict[str, str]) -> Iterator[str]:
    """What is wrong with an expression: series that do not exist, labels that they do not have."""
    asked = read(expression)
    known = {series: labels_of(series, recorded) for series in asked.series}
    for series, labels in known.items():
        if labels is None:
            yield f"there is no series {series}"
    for series, label in asked.matched:
        if label not in (known.get(series) or ()):
            yield f"{series or 'a selector without a name'} has no label {label}"
    for label in asked.grouped - {label for labels in known.values() for label in labels or ()}:
        yield f"no series of {expression!r} has the label {label}"


def _labels_within(expression: str, recorded: dict[str, str]) -> set[str]:
    return {label for series in read(expression).series for label in labels_of(series, recorded) or ()}


def _level(level: str) -> set[str]:
    """The labels that the first part of a recorded name tells: `model_version` is the version of a model."""
    names = sorted({label for metric in METRICS.values() for label in metric.labels}, key=len, reverse=True)
    found = set()
    for name in names:
        if re.search(rf"(?<![a-z]){name}(?![a-z])", level):
            found.add(name)
            level = level.replace(name, "")
    return found | ({"model"} if "model_version" in found else set())
