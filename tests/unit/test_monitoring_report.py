from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from monitoring.report import MAX_BARS, Distribution, accuracy_report, drift_report

START = datetime(2013, 7, 1, tzinfo=UTC)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'/></svg></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "{0.__class__} %s",
    "a & b\r\n<b>",
]
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """What a browser would make of a page; it must close what it opens."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.svgs = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def check(self) -> None:
        """It runs nothing, loads nothing, and those who do not see it can find their way."""
        assert not {tag for tag, _ in self.elements} & {"script", "img", "iframe", "link", "object", "b"}
        for _, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")]
            assert (attributes.get("href") or "#").startswith("#")
        assert self.all("html")[0]["lang"] == "en"
        assert all(attributes.get("scope") in ("col", "row") for attributes in self.all("th"))
        identities = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(set(identities)) == len(identities)
        for svg in self.svgs:
            assert svg.get("role") == "img"
            named = [svg.find(f"*[@id='{name}']") for name in (svg.get("aria-labelledby") or "").split()]
            assert [(one.tag, bool(one.text)) for one in named if one is not None] == [("title", True), ("desc", True)]
        links = {(attributes.get("href") or "")[1:] for attributes in self.all("a")}
        assert links <= set(identities)


def result(name: str, value: float | None, status: str, **more: Any) -> dict[str, Any]:
    told = {"name": name, "type": "number", "statistic": "ks", "value": value, "warn": 0.1, "critical": 0.2}
    return {**told, "p_value": 0.0001, "significant": True, "status": status, "details": {}, **more}


def window(hour: int) -> dict[str, str]:
    start = START + timedelta(hours=hour)
    return {"start": start.isoformat().replace("+00:00", "Z"), "end": (start + timedelta(hours=1)).isoformat()}


def drift(columns: list[dict[str, Any]], hour: int = 10, **more: Any) -> dict[str, Any]:
    told = {"model": "flights", "model_version": "1.2.0", "window": window(hour), "rows": 28330, "status": "critical"}
    return {**told, "audited_at": "2013-07-02T00:00:00Z", "columns": columns, **more}


def accuracy(hour: int = 10, value: float | None = 0.81, **more: Any) -> dict[str, Any]:
    metric = {"value": value, "low": value and value - 0.02, "high": value and value + 0.02}
    told = {"model": "flights", "model_version": "1.2.0", "window": window(hour), "scored": 28330, "labelled": 25000}
    results = {
        "metrics": {"accuracy": metric},
        "estimated": {"accuracy": {"value": 0.8}},
        "reference": {"accuracy": 0.83},
    }
    return {**told, "coverage": 0.88, "status": "ok", **results, "by_version": [], "audited_at": "2013-07-02", **more}


def circles(svg: ET.Element) -> list[tuple[float, float, str]]:
    return [
        (float(one.attrib["cx"]), float(one.attrib["cy"]), one.findtext("title") or "") for one in svg.iter("circle")
    ]


def lines(svg: ET.Element, kind: str) -> list[float]:
    return [float(one.attrib["y1"]) for one in svg.iter("line") if kind in one.attrib["class"].split()]


def test_a_drift_report_tells_each_column_the_worst_first() -> None:
    columns = [
        result("distance", 0.02, "ok"),
        result("hour", 0.25, "critical", details={"psi": 0.31, "quantiles": [1, 2]}),
        result("dest", None, "insufficient_data", p_value=None, significant=None),
        result("hour", 0.03, "warn", statistic="rate_difference"),
    ]
    page = Page(drift_report(drift(columns), [], {}))
    page.check()
    names = [text.strip() for text in page.texts if text.strip() in ("distance", "hour", "dest")]
    assert names == ["hour", "hour", "dest", "distance", "hour", "dest", "distance"]  # the table, then the sections
    for told in ("28,330", "0.25", "0.31", "[1, 2]", "insufficient data", "rate_difference", "\u2013"):
        assert told in page.text
    classes = [attributes["class"] for attributes in page.all("span") if "badge" in str(attributes.get("class"))]
    assert classes[:3] == ["badge critical", "badge critical", "badge warn"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_text_in_a_drift_report(hostile: str) -> None:
    column = result(hostile, 0.25, hostile, type=hostile, statistic=hostile, details={hostile: [hostile], "b": hostile})
    document = drift([column], model=hostile, model_version=hostile, status=hostile)
    html = drift_report(
        document,
        [drift([column], hour) for hour in range(3)],
        {hostile: Distribution([hostile, f"{hostile}2"], [1, 2], [2, 1], ordered=False)},
    )
    page = Page(html)
    page.check()
    assert not re.search(r"<script|<img|<b>|<svg onload", html)
    normal = hostile.replace("\r\n", "\n")
    assert page.text.replace("\r\n", "\n").count(normal) >= 8
    assert any(normal in (title.text or "").replace("\r\n", "\n") for svg in page.svgs for title in svg.iter("title"))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_text_in_an_accuracy_report(hostile: str) -> None:
    document = accuracy(
        metrics={hostile: {"value": 0.8}}, by_version=[{hostile: hostile}], status=hostile, model=hostile
    )
    page = Page(accuracy_report(document, [document]))
    page.check()
    assert page.text.count(hostile) >= 5


def test_the_bars_are_the_shares_of_reference_and_window() -> None:
    distributions = {"dest": Distribution(["LAX", "SFO"], [300, 100], [10, 30], ordered=False)}
    (bars, _) = Page(drift_report(drift([result("dest", 0.25, "critical")]), [], distributions)).svgs
    heights = [(one.attrib["class"], float(one.attrib["height"])) for one in bars.iter("rect")]
    kinds, sizes = zip(*heights, strict=True)
    assert kinds == ("reference", "current") * 2
    assert [size / max(sizes) for size in sizes] == pytest.approx([1, 1 / 3, 1 / 3, 1], abs=0.01)
    assert "The largest change is LAX: from 75.0% to 25.0%." in (bars.findtext("desc") or "")


@pytest.mark.parametrize("ordered", [True, False])
def test_many_bins_and_categories_become_few_bars_that_hold_all_rows(ordered: bool) -> None:
    count = 128
    counts = list(range(count))
    distribution = Distribution([f"b{number}" for number in counts], counts, counts, ordered=ordered)
    (bars, _) = Page(drift_report(drift([result("x", 0.0, "ok")]), [], {"x": distribution})).svgs
    titles = [title.text or "" for title in bars.iter("title")][1:]
    assert len(titles) == MAX_BARS
    shares = [float(re.findall(r"window ([\d.]+)%", title)[0]) for title in titles]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert titles[0].startswith("b0 … b3:" if ordered else "b127:")
    assert titles[-1].startswith("b124 … b127:" if ordered else "97 others:")


def test_nothing_to_show_is_no_error() -> None:
    empty = {"x": Distribution([], [], []), "y": Distribution(["a"], [0], [0])}
    columns = [result("x", None, "insufficient_data", warn=None, critical=None), result("y", 0.0, "ok")]
    page = Page(drift_report(drift(columns), [], empty))
    page.check()
    assert "no values yet" in page.text
    assert "no columns" in Page(drift_report(drift([]), [], {})).text
    blank = accuracy(metrics={}, estimated={}, reference={}, labelled=0, coverage=0.0)
    assert "no labels" in Page(accuracy_report(blank, [])).text


def test_the_history_is_drawn_to_scale_with_its_lines() -> None:
    past = [drift([result("x", value, "ok")], hour) for hour, value in [(0, 0.05), (8, 0.15), (2, None), (4, 0.10)]]
    (svg,) = Page(drift_report(drift([result("x", 0.20, "critical")], hour=10), past, {})).svgs
    dots = circles(svg)
    assert [told.split(": ")[1] for _, _, told in dots] == ["0.05", "0.1", "0.15", "0.2"]
    (x0, y0, _), (x4, y4, _), (x8, y8, _), (x10, y10, _) = dots
    assert (x4 - x0) / (x10 - x0) == pytest.approx(0.4, abs=0.01)
    assert (x8 - x0) / (x10 - x0) == pytest.approx(0.8, abs=0.01)
    assert y0 - y4 == pytest.approx(y4 - y8, abs=0.2)
    assert lines(svg, "warn") == [y4]
    assert lines(svg, "critical") == [y10]


def test_the_names_of_lines_that_are_close_to_each_other_do_not_overlap() -> None:
    column = result("x", 0.9, "critical", warn=0.01, critical=0.05)
    (svg,) = Page(drift_report(drift([column]), [], {})).svgs
    places = {one.text: float(one.attrib["y"]) for one in svg.iter("text")}
    assert lines(svg, "warn")[0] - lines(svg, "critical")[0] < 8
    assert places["warn 0.01"] - places["critical 0.05"] >= 11.9


def test_a_window_that_stands_in_the_history_too_is_drawn_once() -> None:
    (svg,) = Page(drift_report(drift([result("x", 0.2, "critical")]), [drift([result("x", 0.1, "warn")])], {})).svgs
    assert [told.split(": ")[1] for _, _, told in circles(svg)] == ["0.2"]


def test_an_accuracy_report_tells_value_interval_estimate_and_reference() -> None:
    versions = [{"model_version": "1.1.0", "labelled": 12000, "metrics": {"accuracy": {"value": 0.7654}}}]
    page = Page(accuracy_report(accuracy(by_version=versions), []))
    page.check()
    for told in ("28,330", "0.88", "0.81", "0.79", "0.83", "0.8", "1.1.0", "12,000", "0.7654"):
        assert told in page.text
    header = [text for text in page.texts if text in ("model_version", "labelled", "accuracy", "metrics")]
    assert header[:4] == ["accuracy", "model_version", "labelled", "accuracy"]


def test_accuracy_over_time_has_its_band_and_the_reference() -> None:
    past = [accuracy(0, 0.85), accuracy(5, 0.83), accuracy(7, None)]
    (svg,) = Page(accuracy_report(accuracy(10, 0.81), past)).svgs
    dots = circles(svg)
    assert [told.split(": ")[1] for _, _, told in dots] == [
        "0.85 (0.83 to 0.87)",
        "0.83 (0.81 to 0.85)",
        "0.81 (0.79 to 0.83)",
    ]
    assert lines(svg, "reference") == [dots[1][1]]
    (band,) = svg.iter("polygon")
    corners = [tuple(map(float, corner.split(","))) for corner in band.attrib["points"].split()]
    assert len(corners) == 6
    assert corners[2][1] == pytest.approx(dots[1][1], abs=0.2)  # 0.83, its upper end


def test_one_window_shows_its_interval_as_a_line() -> None:
    (svg,) = Page(accuracy_report(accuracy(), [])).svgs
    assert len(lines(svg, "interval")) == 1
    assert list(svg.iter("polygon")) == []


def test_a_metric_that_is_only_estimated_yet_is_told() -> None:
    page = Page(accuracy_report(accuracy(metrics={}, status="provisional"), []))
    page.check()
    assert "no values yet" in page.text
    assert "0.8" in page.text


def test_the_page_is_light_and_dark_and_lets_nothing_run() -> None:
    html = drift_report(drift([]), [], {})
    assert "@media (prefers-color-scheme: dark)" in html
    policy = Page(html).all("meta")[2]
    assert policy == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    }


def test_a_window_that_reached_further_back_hides_no_other() -> None:
    """Two windows may begin at one time when one of them had too few rows."""
    column = result("x", 0.2, "critical")
    wide = drift([result("x", 0.1, "ok")], hour=10)
    wide["window"] = {**window(10), "end": window(20)["end"]}
    (svg,) = Page(drift_report(drift([column], hour=10), [wide], {})).svgs
    assert [told.split(": ")[1] for _, _, told in circles(svg)] == ["0.2", "0.1"]


def test_a_note_is_told_and_what_belongs_to_no_column_has_a_name() -> None:
    page = Page(drift_report(drift([result("", 0.2, "warn", statistic="domain_auc")]), [], {}, note="Mind <this>."))
    page.check()
    assert "Mind <this>." in page.text
    assert page.text.count("(all columns together)") == 2


def test_the_name_of_a_line_has_room_for_its_value() -> None:
    html = accuracy_report(accuracy(reference={"accuracy": 0.012345}), [accuracy(0)])
    (svg,) = Page(html).svgs
    (name,) = [one for one in svg.iter("text") if str(one.text).startswith("reference")]
    assert name.text == "reference 0.0123"
    width = float(svg.attrib["viewBox"].split()[2])
    assert float(name.attrib["x"]) + 7 * len(name.text) <= width, "11 px letters are 6 to 7 px wide"


def test_each_bar_has_its_name_when_there_is_room_for_all() -> None:
    def named(labels: list[str]) -> list[str | None]:
        bars = Distribution(labels, [1] * len(labels), [1] * len(labels), ordered=False)
        svg = Page(drift_report(drift([result("x", 0.0, "ok")]), [], {"x": bars})).svgs[0]
        return [one.text for one in svg.iter("text") if not str(one.text).endswith("%")]

    assert named(["EWR", "JFK", "LGA"]) == ["EWR", "JFK", "LGA"]
    assert named([f"airport {number}" for number in range(16)]) == ["airport 0", "airport 15"]
    assert named(["a" * 100]) == ["a" * 27 + "…"]


def test_details_are_short_numbers() -> None:
    details = {"changes": {"EWR": -0.02134303680414279, "JFK": 3}, "reason": None}
    text = Page(drift_report(drift([result("x", 0.2, "warn", details=details)]), [], {})).text
    assert "EWR: -0.02134, JFK: 3" in text
