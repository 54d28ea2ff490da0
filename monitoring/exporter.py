"""What `GET /metrics` shows: read from Postgres when Prometheus asks, so that it survives every restart of ours.

Rows are counted by the transaction that made them durable, once, and the sums never go down. The metrics of HTTP, which
are each process's own, are `api.http_metrics`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine

import logs
from db import alerts, audits, deployments, gauges, models, periodic, profiles, workers
from db.engine import transaction
from errors import Unavailable
from monitoring.metric_names import METRICS

_log = logs.get(__name__)

ROLL_UP = "rollup"  # as the metric and the periodic run are called

_LANES = ("interactive", "bulk")
_STATUS = {"ok": 0, "warn": 1, "critical": 2}


class DatabaseCollector(Collector):
    """All that the tables say; when they cannot be read, only that."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        try:
            with transaction(self._engine) as connection:
                found = [
                    *_scoring(connection),
                    *_queue(connection),
                    *_workers(connection),
                    *_audits(connection),
                    *_alerts(connection),
                ]
        except Unavailable as exc:
            _log.warning("metrics_unavailable", reason=str(exc))
            found = []
        yield _gauge("scorehouse_up", [([], 1.0 if found else 0.0)])
        yield from found


def _scoring(connection: Connection) -> Iterator[Metric]:
    rows: dict[tuple[str, str, str], int] = defaultdict(int)
    counts: dict[tuple[str, str, str], list[int]] = {}
    sums: dict[tuple[str, str, str], float] = defaultdict(float)
    errors: dict[str, int] = defaultdict(int)
    for row in profiles.totals(connection):
        key = (row.model, row.model_version, row.endpoint)
        rows[key] += row.rows
        fresh = row.seconds or []
        each = row.seconds_counts or profiles.bucket_counts(fresh)
        counts[key] = [a + b for a, b in zip(counts.get(key, [0] * len(each)), each, strict=True)]
        sums[key] += row.seconds_sum if row.seconds_sum is not None else sum(fresh)
        for code, count in row.errors.items():
            errors[code] += int(count)
    yield _counter("ml_predictions_total", [(list(key), count) for key, count in rows.items()])
    yield _counter("scorehouse_rows_scored_total", [([], sum(rows.values()))])
    yield _counter("scorehouse_row_errors_total", [([code], count) for code, count in errors.items()])
    events = profiles.events(connection)
    for name in ("chunk_rescues", "cache_hits", "cache_misses"):
        yield _counter(f"scorehouse_{name}_total", [([], events.get(name, 0))])
    duration = "ml_prediction_duration_seconds"
    histogram = HistogramMetricFamily(duration, METRICS[duration].help, labels=list(METRICS[duration].labels))
    for key, each in counts.items():
        bounds = [*(f"{bound:g}" for bound in profiles.BUCKETS), "+Inf"]
        cumulated = [(bound, float(sum(each[: place + 1]))) for place, bound in enumerate(bounds)]
        histogram.add_metric(list(key), cumulated, sum_value=sums[key])
    yield histogram


def _queue(connection: Connection) -> Iterator[Metric]:
    yield _gauge("scorehouse_jobs", [([state], count) for state, count in gauges.open_jobs(connection).items()])
    chunks = {(lane, state): 0 for lane in _LANES for state in ("queued", "running")}
    oldest = dict.fromkeys(_LANES, 0.0)
    for row in gauges.open_chunks(connection):
        chunks[row.lane, row.state] = row.number
        if row.oldest is not None:
            oldest[row.lane] = max(float(row.oldest), 0.0)
    yield _gauge("scorehouse_chunks", [(list(key), count) for key, count in chunks.items()])
    yield _gauge("scorehouse_oldest_pending_seconds", [([lane], seconds) for lane, seconds in oldest.items()])


def _workers(connection: Connection) -> Iterator[Metric]:
    live: Sequence[Any] = workers.live(connection)
    serving = {lane: sum(lane in child.lanes for child in live) for lane in _LANES}
    yield _gauge("scorehouse_workers", [([lane], count) for lane, count in serving.items()])
    refusing = [
        ([version.model, version.version], sum(version.digest in child.refused for child in live))
        for version in models.in_production(connection)
    ]
    yield _gauge("scorehouse_workers_refusing", _worst(refusing, max))
    over = [([row.model, row.kind, row.state], row.number) for row in deployments.over(connection)]
    yield _counter("scorehouse_deployments_total", over)


def _audits(connection: Connection) -> Iterator[Metric]:
    drift = audits.latest_of_production(connection, "drift")
    scores = [
        ([row.model, row.model_version, name], value)
        for row in drift
        for name, value in {
            column["name"]: column["value"]
            for column in reversed(row.document["columns"])  # of a column with several checks the first one counts
            if column["value"] is not None
        }.items()
    ]
    yield _gauge("ml_data_drift_score", _worst(scores, max))
    statuses = [([row.model, row.model_version], _STATUS.get(row.status, -1)) for row in drift]
    yield _gauge("scorehouse_drift_status", _worst(statuses, max))
    judged = [
        ([row.model, row.model_version], row.document) for row in audits.latest_of_production(connection, "accuracy")
    ]
    known = [
        (labels, document["metrics"]["accuracy"]) for labels, document in judged if "accuracy" in document["metrics"]
    ]
    for name, part in (
        ("ml_model_accuracy", "value"),
        ("scorehouse_model_accuracy_low", "low"),
        ("scorehouse_model_accuracy_high", "high"),
    ):
        values = [(labels, metric[part]) for labels, metric in known if metric[part] is not None]
        yield _gauge(name, _worst(values, min))
    coverage = [(labels, document["coverage"]) for labels, document in judged]
    yield _gauge("scorehouse_label_coverage", _worst(coverage, min))
    ends = {**audits.last_success(connection), ROLL_UP: periodic.last_end(connection, ROLL_UP)}
    times = [([kind], at.timestamp()) for kind, at in ends.items() if at is not None]
    yield _gauge("scorehouse_audit_last_success_timestamp_seconds", times)


def _alerts(connection: Connection) -> Iterator[Metric]:
    counts = [([row.model, row.state, row.severity or "none"], row.number) for row in alerts.counts(connection)]
    yield _gauge("scorehouse_alerts", counts)


def _worst(
    samples: Sequence[tuple[list[str], float]], choose: Callable[[float, float], float]
) -> list[tuple[list[str], float]]:
    """One sample of each series: models of several tenants may have one name and version, and the worst of them is shown."""
    found: dict[tuple[str, ...], float] = {}
    for labels, value in samples:
        found[tuple(labels)] = choose(found.get(tuple(labels), value), value)
    return [(list(labels), value) for labels, value in found.items()]


def _gauge(name: str, samples: Sequence[tuple[Sequence[str], float]]) -> Metric:
    metric = METRICS[name]
    return _filled(GaugeMetricFamily(name, metric.help, labels=list(metric.labels)), samples)


def _counter(name: str, samples: Sequence[tuple[Sequence[str], float]]) -> Metric:
    metric = METRICS[name]
    return _filled(CounterMetricFamily(name, metric.help, labels=list(metric.labels)), samples)


def _filled(family: Any, samples: Sequence[tuple[Sequence[str], float]]) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    found: Metric = family
    return found
