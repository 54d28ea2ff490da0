"""The metrics of `GET /metrics`: each name with its kind, its labels and what it counts.

This is the one list of them. The exporter takes its help texts from here, and tests hold the exporter, the rules of
Prometheus, the dashboards and `docs/reference/metrics.md` against it. A histogram stands here once; what is scraped
has `_bucket` (with the label `le`), `_sum` and `_count` behind its name.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """What is told of a metric; unpacks as (kind, labels, help)."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


_VERSION = ("model", "model_version")

METRICS: dict[str, Metric] = {
    # scoring
    "ml_predictions_total": Metric("counter", (*_VERSION, "endpoint"), "Rows scored and durable"),
    "ml_prediction_duration_seconds": Metric(
        "histogram", (*_VERSION, "endpoint"), "Seconds from submit to result of a job's claims, as they are finished"
    ),
    "scorehouse_rows_scored_total": Metric("counter", (), "Rows scored and durable, of all models"),
    "scorehouse_row_errors_total": Metric("counter", ("code",), "Rows that ended as a row error"),
    "scorehouse_cache_hits_total": Metric("counter", (), "Single records whose answer a worker still had"),
    "scorehouse_cache_misses_total": Metric("counter", (), "Single records that a worker looked up in vain"),
    # the queue
    "scorehouse_jobs": Metric("gauge", ("state",), "Open jobs"),
    "scorehouse_chunks": Metric("gauge", ("lane", "state"), "Open chunks"),
    "scorehouse_oldest_pending_seconds": Metric("gauge", ("lane",), "Age of the oldest chunk that waits, in seconds"),
    "scorehouse_chunk_rescues_total": Metric("counter", (), "Claims taken back from dead or late workers"),
    # workers
    "scorehouse_workers": Metric("gauge", ("lane",), "Live worker processes; 0 when nobody serves the lane"),
    "scorehouse_workers_refusing": Metric("gauge", _VERSION, "Live worker processes that refuse a version"),
    "scorehouse_deployments_total": Metric("counter", ("model", "kind", "state"), "Deployments that are over"),
    # audits
    "ml_data_drift_score": Metric(
        "gauge", (*_VERSION, "feature_name"), "Statistic of a column in the latest drift audit"
    ),
    "ml_model_accuracy": Metric("gauge", _VERSION, "Accuracy in the latest audit with enough labels"),
    "scorehouse_model_accuracy_low": Metric("gauge", _VERSION, "Lower end of the accuracy's 95 % interval"),
    "scorehouse_model_accuracy_high": Metric("gauge", _VERSION, "Upper end of the accuracy's 95 % interval"),
    "scorehouse_drift_status": Metric(
        "gauge", _VERSION, "Latest drift audit: 0 ok, 1 warn, 2 critical, -1 not enough data"
    ),
    "scorehouse_label_coverage": Metric("gauge", _VERSION, "Share of the scored rows that have a label, 0 to 1"),
    "scorehouse_alerts": Metric("gauge", ("model", "state", "severity"), "Alerts of the audits"),
    "scorehouse_audit_last_success_timestamp_seconds": Metric(
        "gauge", ("audit",), "Unix time of the latest audit that succeeded; absent before the first"
    ),
    # the API and its exporter
    "scorehouse_http_requests_total": Metric("counter", ("method", "route", "status"), "HTTP requests answered"),
    "scorehouse_http_request_duration_seconds": Metric(
        "histogram", ("method", "route"), "Seconds from the start of a request to its answer"
    ),
    "scorehouse_refused_total": Metric("counter", ("reason",), "Requests refused with 429, by quota or limit"),
    "scorehouse_up": Metric("gauge", (), "1 when the exporter could read the database, else 0"),
}
