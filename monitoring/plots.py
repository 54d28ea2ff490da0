"""The plots of the reports: SVG as text, drawn with classes that the report's style sheet colours for light and dark.

Each has a title and a description for those who do not see it. Whatever stands in it is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

WIDTH, HEIGHT = 480, 180
# On the right stands the name of a line with its value, such as `reference 0.0123`.
LEFT, RIGHT, TOP, BOTTOM = 52, 116, 12, 24
#: Height of a line of text, and the width of a letter, which is rarely more.
LINE, LETTER = 12, 7
#: A scale that is as high as its highest value would have its line run along the border.
_HEADROOM = 0.08


@dataclass(frozen=True)
class Point:
    """One window's value; `low` and `high` bound its interval, if it has one."""

    at: datetime
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Level:
    """A horizontal line; `kind` is one of the style sheet's: "warn", "critical" or "reference"."""

    kind: str
    value: float


def bars(
    identity: str, title: str, labels: Sequence[str], reference: Sequence[float], current: Sequence[float]
) -> Markup:
    """Two bars for each label: its share (0 to 1) of the reference, and of the window. `identity` is unique on a page."""
    top = max([*reference, *current, 1e-9]) * (1 + _HEADROOM)
    slot = (WIDTH - LEFT - 8) / max(len(labels), 1)
    width = max(slot * 0.42, 0.5)
    marks: list[Markup] = [_scale([0.0, top / 2, top], top, 0.0, percent=True, right=8)]
    for number, (label, expected, found) in enumerate(zip(labels, reference, current, strict=True)):
        start = LEFT + number * slot + (slot - 2 * width) / 2
        told = f"{label}: reference {expected:.2%}, window {found:.2%}"
        pair = Markup("").join(
            _bar(start + turn * width, width, share / top, kind)
            for turn, (kind, share) in enumerate([("reference", expected), ("current", found)])
        )
        marks.append(Markup("<g><title>{}</title>{}</g>").format(told, pair))
    marks += _bar_names(labels, slot)
    widest = max(zip(labels, reference, current, strict=True), key=lambda one: abs(one[1] - one[2]), default=None)
    description = f"{len(labels)} bins or categories."
    if widest:
        description += f" The largest change is {widest[0]}: from {widest[1]:.1%} to {widest[2]:.1%}."
    return _svg(identity, title, description, marks)


def _bar_names(labels: Sequence[str], slot: float) -> Iterator[Markup]:
    """Under each pair of bars its name, if there is room; else those of the first and the last."""
    if all(len(label) * LETTER <= slot for label in labels):
        for number, label in enumerate(labels):
            yield _text(LEFT + (number + 0.5) * slot, HEIGHT - 6, label, "middle")
        return
    yield _text(LEFT, HEIGHT - 6, _short(labels[0]), "start")
    if len(labels) > 1:
        yield _text(WIDTH - 8, HEIGHT - 6, _short(labels[-1]), "end")


def history(identity: str, title: str, points: Sequence[Point], levels: Sequence[Level], *, from_zero: bool) -> Markup:
    """Values over time with their intervals as a band, and levels across. Times to scale, `from_zero` the values too."""
    if not points:
        return _svg(
            identity, title, "No window has a value yet.", [_text(WIDTH / 2, HEIGHT / 2, "no values yet", "middle")]
        )
    points = sorted(points, key=lambda point: point.at)
    known = [value for point in points for value in (point.value, point.low, point.high) if value is not None]
    known += [level.value for level in levels]
    bottom, top = min(known), max(known)
    margin = (top - bottom) * _HEADROOM or abs(top) * _HEADROOM or 1.0
    top, bottom = top + margin, min(bottom, 0.0) if from_zero else bottom - margin
    places = [(_across(point.at, points[0].at, points[-1].at), point) for point in points]

    def height(value: float) -> float:
        return _height(value, top, bottom)

    marks = [_scale([bottom, top], top, bottom, percent=False, right=RIGHT)]
    band = [(x, point.low, point.high) for x, point in places if point.low is not None and point.high is not None]
    if len(band) > 1:
        corners = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
        marks.append(Markup('<polygon class="band" points="{}"/>').format(_path((x, height(y)) for x, y in corners)))
    elif band:
        # A single window has no width: its interval is a line.
        marks.append(_line(band[0][0], height(band[0][1]), band[0][0], height(band[0][2]), "interval"))
    label = float(HEIGHT)
    for level in sorted(levels, key=lambda level: level.value):
        y = height(level.value)
        label = min(y + 4, label - LINE)  # names of lines that are close to each other do not overlap
        marks.append(_line(LEFT, y, WIDTH - RIGHT, y, f"level {level.kind}"))
        marks.append(_text(WIDTH - RIGHT + 4, label, f"{level.kind} {level.value:.3g}", "start"))
    marks.append(
        Markup('<polyline class="values" points="{}"/>').format(_path((x, height(p.value)) for x, p in places))
    )
    for x, point in places:
        told = f"{point.at:%Y-%m-%d %H:%M}: {point.value:.4g}"
        if point.low is not None and point.high is not None:
            told += f" ({point.low:.4g} to {point.high:.4g})"
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
        marks.append(dot.format(x, height(point.value), told))
    first, last = points[0], points[-1]
    marks.append(_text(LEFT, HEIGHT - 6, f"{first.at:%Y-%m-%d %H:%M}", "start"))
    if last.at > first.at:
        marks.append(_text(WIDTH - RIGHT, HEIGHT - 6, f"{last.at:%Y-%m-%d %H:%M}", "end"))
    description = f"{len(points)} window{'s' if len(points) > 1 else ''}; the newest value is {last.value:.4g}."
    description += "".join(f" The {level.kind} line is at {level.value:.4g}." for level in levels)
    return _svg(identity, title, description, marks)


def _svg(identity: str, title: str, description: str, marks: Iterable[Markup]) -> Markup:
    return Markup(
        '<svg role="img" viewBox="0 0 {width} {height}" aria-labelledby="{identity}-title {identity}-desc">'
        '<title id="{identity}-title">{title}</title><desc id="{identity}-desc">{description}</desc>{marks}</svg>'
    ).format(
        width=WIDTH,
        height=HEIGHT,
        identity=identity,
        title=title,
        description=description,
        marks=Markup("").join(marks),
    )


def _scale(values: Sequence[float], top: float, bottom: float, *, percent: bool, right: float) -> Markup:
    marks = Markup("")
    for value in values:
        y = _height(value, top, bottom)
        marks += _line(LEFT, y, WIDTH - right, y, "grid")
        marks += _text(LEFT - 6, y + 4, f"{value:.1%}" if percent else f"{value:.3g}", "end")
    return marks


def _height(value: float, top: float, bottom: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - bottom) / (top - bottom))


def _across(at: datetime, first: datetime, last: datetime) -> float:
    span = (last - first).total_seconds()
    place = (at - first).total_seconds() / span if span else 0.5
    return LEFT + (WIDTH - LEFT - RIGHT) * place


def _bar(x: float, width: float, share: float, kind: str) -> Markup:
    height = (HEIGHT - TOP - BOTTOM) * share
    bar = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    return bar.format(kind, x, HEIGHT - BOTTOM - height, width, height)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    line = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return line.format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _path(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"
