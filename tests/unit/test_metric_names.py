"""The list of metrics: named as Prometheus wants it, and documented word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.metric_names import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_every_metric_is_documented() -> None:
    rows = re.findall(
        r"^\| `((?:ml|scorehouse)_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE
    )
    documented = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    assert documented == [(name, *metric) for name, metric in METRICS.items()]


@pytest.mark.parametrize("name", METRICS)
def test_counters_alone_end_in_total(name: str) -> None:
    assert (METRICS[name].kind == "counter") == name.endswith("_total")


def test_the_names_survive_the_text_format() -> None:
    """As the exporter will write them and Prometheus read them."""

    class Collector:
        def collect(self) -> list[Metric]:
            return [_family(name) for name in METRICS]

    registry = CollectorRegistry()
    registry.register(Collector())
    scraped = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert {sample.name for family in scraped for sample in family.samples} == {
        f"{name}{suffix}"
        for name, metric in METRICS.items()
        for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
    }


def _family(name: str) -> Metric:
    kind, labels, text = METRICS[name]
    values = ["x"] * len(labels)
    if kind == "histogram":
        histogram = HistogramMetricFamily(name, text, labels=labels)
        histogram.add_metric(values, buckets=[("1.0", 1), ("+Inf", 2)], sum_value=3)
        return histogram
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
    family.add_metric(values, 1)
    return family
