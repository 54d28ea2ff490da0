"""`GET /metrics`, and what this process counts by itself: requests and how long they took.

The processes of one API share files (prometheus-client's multiprocess mode), so that whichever answers tells of all.
"""

from __future__ import annotations

import os
import time

from flask import Flask, Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from api.auth import open_on_loopback, scope, tells_of_outages
from api.context import context
from monitoring.exporter import DatabaseCollector
from monitoring.metric_names import METRICS

blueprint = APIBlueprint("metrics", __name__, abp_tags=[Tag(name="metrics")])

_REQUESTS, _DURATION = "scorehouse_http_requests_total", "scorehouse_http_request_duration_seconds"
_REFUSED = "scorehouse_refused_total"
_requests = Counter(_REQUESTS, METRICS[_REQUESTS].help, METRICS[_REQUESTS].labels)
_duration = Histogram(_DURATION, METRICS[_DURATION].help, METRICS[_DURATION].labels)
_refused = Counter(_REFUSED, METRICS[_REFUSED].help, METRICS[_REFUSED].labels)


def count_refusal(reason: str) -> None:
    """Count an answer 429; by reason and not by tenant, of which there may be any number."""
    _refused.labels(reason).inc()


def install(app: Flask) -> None:
    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        # The rule and not the path: a label per job would never end.
        route = str(request.url_rule) if request.url_rule is not None else "none"
        _requests.labels(request.method, route, str(response.status_code)).inc()
        if hasattr(g, "began"):
            _duration.labels(request.method, route).observe(time.perf_counter() - g.began)
        return response


@blueprint.get("/metrics", responses={200: {"description": "Prometheus text", "content": {"text/plain": {}}}})
@scope("metrics:read")
@open_on_loopback
@tells_of_outages
def metrics() -> Response:
    """Metrics of the whole installation for Prometheus; without a token only while the API listens on loopback alone."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # has no types
    else:
        for metric in (_requests, _duration, _refused):
            registry.register(metric)
    registry.register(DatabaseCollector(context().system_engine))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
