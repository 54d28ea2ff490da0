"""What must hold for every route, every error, every token and every setting, whatever is added."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from sqlalchemy import Engine

from api.app import create_app
from api.auth import PUBLIC, required_scope
from api.docs import openapi
from api.tokens import SCOPES, create_token
from cli import command_lines
from db import workers
from db.engine import transaction
from permits import LANES, PERMITS, TRAINING
from settings import Settings

JOB = "01a20508-40b5-7e8c-ab98-02d7c22cfdcb"
# What each route needs. A route that is added is added here too.
ROUTES = {
    "GET /docs": PUBLIC,
    "GET /docs/<name>": PUBLIC,
    "GET /health": PUBLIC,
    "GET /health/live": PUBLIC,
    "GET /health/ready": PUBLIC,
    "GET /metrics": "metrics:read",
    "GET /openapi.json": PUBLIC,
    "GET /v1/alerts": "audits:read",
    "GET /v1/alerts/<uuid:id>": "audits:read",
    "GET /v1/audits/<uuid:id>": "audits:read",
    "GET /v1/audits/<uuid:id>/report": "audits:read",
    "GET /v1/audit-trail": "admin",
    "GET /v1/jobs": "jobs:read",
    "GET /v1/jobs/<uuid:id>": "jobs:read",
    "GET /v1/jobs/<uuid:id>/errors": "jobs:read",
    "GET /v1/jobs/<uuid:id>/events": "jobs:read",
    "GET /v1/jobs/<uuid:id>/results": "jobs:read",
    "GET /v1/models": "models:read",
    "GET /v1/models/<model>": "models:read",
    "GET /v1/models/<model>/accuracy": "audits:read",
    "GET /v1/models/<model>/audit-policy": "audits:read",
    "GET /v1/models/<model>/audits": "audits:read",
    "GET /v1/models/<model>/deployments": "models:read",
    "GET /v1/models/<model>/deployments/<uuid:id>": "models:read",
    "GET /v1/models/<model>/drift": "audits:read",
    "GET /v1/models/<model>/training-policy": "models:read",
    "GET /v1/models/<model>/trainings": "models:read",
    "GET /v1/models/<model>/trainings/<uuid:id>": "models:read",
    "GET /v1/models/<model>/versions/<version>": "models:read",
    "GET /v1/models/<model>/versions/<version>/metrics": "models:read",
    "GET /v1/predictions": "jobs:read",
    "GET /v1/quota": "jobs:read",
    "GET /v1/tokens": "admin",
    "POST /predict": "jobs:write",
    "POST /predict/batch": "jobs:write",
    "POST /v1/alerts/<uuid:id>/ack": "deploy",
    "POST /v1/alerts/<uuid:id>/suppress": "deploy",
    "POST /v1/jobs": "jobs:write",
    "POST /v1/jobs/<uuid:id>/cancel": "jobs:write",
    "POST /v1/jobs/<uuid:id>/retry": "jobs:write",
    "POST /v1/labels": "labels:write",
    "POST /v1/models/<model>/audits": "audits:read",
    "POST /v1/models/<model>/deployments": "deploy",
    "POST /v1/models/<model>/deployments/<uuid:id>/cancel": "deploy",
    "POST /v1/models/<model>/rollback": "deploy",
    "POST /v1/models/<model>/trainings": "models:write",
    "POST /v1/models/<model>/versions": "models:write",
    "POST /v1/tokens": "admin",
    "POST /v1/tokens/<uuid:id>/revoke": "admin",
    "PUT /v1/models/<model>/audit-policy": "deploy",
    "PUT /v1/models/<model>/training-policy": "models:write",
}
PROTECTED = [(*route.split(" "), scope) for route, scope in ROUTES.items() if scope != PUBLIC]
JOB_ROUTES = [(method, rule) for method, rule, _ in PROTECTED if rule.startswith("/v1/jobs/")]


@pytest.fixture
def app(settings: Settings) -> Iterator[OpenAPI]:
    app = create_app(settings)
    yield app
    app.extensions["scorehouse"].close()


@pytest.fixture
def http(app: OpenAPI) -> FlaskClient:
    return app.test_client()


def bearer(settings: Settings, *scopes: str, tenant: str = "default") -> dict[str, str]:
    token = create_token(
        settings, subject="tests", tenant=tenant, scopes=scopes or ("admin",), ttl=timedelta(minutes=5)
    )
    return {"Authorization": f"Bearer {token}"}


def filled(rule: str) -> str:
    return rule.replace("<uuid:id>", JOB).replace("<model>", "m").replace("<version>", "1.0.0")


def assert_problem(answer: Any, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), (
        answer.is_streamed or answer.data
    )
    problem: dict[str, Any] = answer.get_json(force=True)
    assert {"type", "title", "status", "detail", "instance"} <= set(problem)
    assert problem["status"] == status
    return problem


def test_every_route_is_in_the_table_with_its_scope(app: OpenAPI) -> None:
    found = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        assert hasattr(view, "required_scope"), f"{rule} declares no scope"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            found[f"{method} {rule.rule}"] = required_scope(view)
    assert found == ROUTES
    assert set(ROUTES.values()) <= {PUBLIC, *SCOPES}


def test_every_route_and_scope_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "scopes.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (?:`([a-z:]+)`|—) \|$", page, re.MULTILINE)
    told = {route: scope or PUBLIC for route, scope in rows}
    assert told == {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route): scope for route, scope in ROUTES.items()}
    assert set(re.findall(r"^\| `([a-z:]+)` \|", page, re.MULTILINE)) == set(SCOPES)


def test_every_route_is_in_the_openapi_document_with_its_scope(app: OpenAPI) -> None:
    document = openapi(app)
    for route, scope in ROUTES.items():
        method, rule = route.split(" ")
        if rule == "/openapi.json" or rule.startswith("/docs"):
            continue
        operation = document["paths"][re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)][method.lower()]
        assert operation["security"] == ([] if scope == PUBLIC else [{"bearer": [scope]}])
        assert operation["summary"]
        assert "422" not in operation["responses"]
        assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
        assert len(operation["responses"]) > 1, "says nothing of its success"


def test_the_openapi_document_shows_what_a_submission_takes(app: OpenAPI) -> None:
    content = openapi(app)["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "text/csv", "application/x-ndjson", "multipart/form-data"}
    assert {"model", "inputs", "keys", "metadata"} <= set(content["application/json"]["schema"]["properties"])


def test_the_openapi_document_is_whole(http: FlaskClient) -> None:
    """Each reference leads somewhere, each path parameter is declared, and no operation has the name of another."""
    document = http.get("/openapi.json").get_json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Scorehouse"
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))):
        place = document
        for part in reference.split("/"):
            place = place[part]
    names = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            declared = {item["name"] for item in operation.get("parameters", []) if item["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))
            assert operation["responses"]
    assert len(set(names)) == len(names)
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


@pytest.mark.parametrize(("method", "rule", "scope"), PROTECTED, ids=str)
def test_a_protected_route_needs_a_token_of_its_scope(
    http: FlaskClient, settings: Settings, method: str, rule: str, scope: str
) -> None:
    path = filled(rule)
    answer = http.open(path, method=method)
    assert_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    others = [name for name in SCOPES if name not in {scope, "admin"}]
    problem = assert_problem(http.open(path, method=method, headers=bearer(settings, *others)), 403)
    assert f"{scope!r}" in problem["detail"]
    assert http.open(path, method=method, headers=bearer(settings, scope)).status_code not in {401, 403}


def test_metrics_need_no_token_on_loopback_alone(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_host": "127.0.0.1"}))
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    assert b"scorehouse_up 1.0" in answer.data
    # A proxy on the same machine brings requests from anywhere.
    assert_problem(app.test_client().get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"}), 401)
    app.extensions["scorehouse"].close()


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nowhere", b"", {}, 404),
        ("GET", "/v1/jobs/not-an-id", b"", {}, 404),
        ("GET", f"/v1/jobs/{JOB}", b"", {}, 404),
        ("GET", "/static/anything", b"", {}, 404),
        ("DELETE", "/v1/jobs", b"", {}, 405),
        ("GET", "/predict", b"", {}, 405),
        ("POST", "/v1/jobs", b"x", {"Content-Type": "image/png"}, 415),
        ("POST", "/v1/jobs", b"x", {}, 415),
        ("POST", "/v1/models/m/versions", b"{}", JSON, 415),
        ("POST", "/v1/jobs?model=m", b"x", {"Content-Type": "multipart/form-data"}, 422),
        ("POST", "/v1/jobs", b'{"model": "m", "inputs"', JSON, 422),
        ("POST", "/v1/jobs", b"", JSON, 422),
        ("POST", "/v1/jobs", b"[" * 100_000, JSON, 422),
        ("POST", "/v1/jobs", b'{"model": "m", "inputs": {"x": NaN}}', JSON, 422),
        ("POST", "/v1/jobs", b'{"model": "m", "inputs": {"x": -Infinity}}', JSON, 422),
        ("POST", "/v1/jobs", b'{"model": "m", "inputs": {"x": "\xff"}}', JSON, 422),
        ("POST", "/v1/jobs", b'{"model": "\\ud800", "inputs": {}}', JSON, 422),
        ("POST", "/v1/jobs", b'{"model": "m", "inputs": {"x": ' + b"1" * 5_000 + b"}}", JSON, 404),
        ("POST", "/predict?model=m", b"[1]", JSON, 422),
        ("POST", "/v1/models/m/deployments", b"{", JSON, 422),
        ("POST", "/v1/models/m/deployments", b'{"version": "1.0.0", "why": "\\u0000"}', JSON, 422),
        ("POST", "/v1/models/m/deployments", b'{"version": "1.0.0"}', {}, 422),
        ("POST", "/v1/models/M!/deployments", b'{"version": "1.0.0"}', JSON, 422),
        ("POST", "/v1/models/m/rollback", b"[", JSON, 422),
        ("POST", f"/v1/jobs/{JOB}/retry", b"{", JSON, 422),
        ("GET", "/v1/jobs?limit=0", b"", {}, 422),
        ("GET", "/v1/jobs?after=x", b"", {}, 422),
        ("GET", "/v1/jobs?model=%00", b"", {}, 422),
        ("GET", "/v1/jobs?state=lost", b"", {}, 422),
        ("GET", f"/v1/jobs/{JOB}?wait=nan", b"", {}, 422),
        ("GET", f"/v1/jobs/{JOB}/results?format=xlsx", b"", {}, 422),
    ],
)
def test_every_error_is_a_problem_document(
    http: FlaskClient, settings: Settings, *, method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = http.open(path, method=method, data=body, headers={**bearer(settings), **headers})
    problem = assert_problem(answer, status)
    assert problem["instance"] == path.partition("?")[0]
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize(("method", "rule"), JOB_ROUTES)
def test_another_tenants_job_is_not_there(
    http: FlaskClient, settings: Settings, make_job: Any, method: str, rule: str
) -> None:
    job_id: UUID = make_job(3)
    path = rule.replace("<uuid:id>", str(job_id))
    mine = http.open(path, method=method, headers=bearer(settings))
    assert mine.status_code in {200, 409}
    mine.close()
    theirs = http.open(path, method=method, headers=bearer(settings, tenant="other"))
    unknown = http.open(rule.replace("<uuid:id>", JOB), method=method, headers=bearer(settings, tenant="other"))
    told, expected = assert_problem(theirs, 404), assert_problem(unknown, 404)
    assert told["detail"].replace(str(job_id), JOB) == expected["detail"]


def test_another_tenants_jobs_and_models_are_not_listed(http: FlaskClient, settings: Settings, make_job: Any) -> None:
    make_job(3)
    theirs = bearer(settings, tenant="other")
    assert len(http.get("/v1/jobs", headers=bearer(settings)).get_json()["jobs"]) == 1
    assert http.get("/v1/jobs", headers=theirs).get_json() == {"jobs": [], "next": None}
    assert http.get("/v1/models", headers=theirs).get_json() == {"models": []}
    for path in ("/v1/models/m", "/v1/models/m/deployments", "/v1/models/m/versions/1.0.0"):
        assert http.get(path, headers=bearer(settings)).status_code == 200
        assert "none yet" in assert_problem(http.get(path, headers=theirs), 404)["detail"]


def test_no_database_is_a_503_that_says_when_to_come_back(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/nothing"})
    http = create_app(away).test_client()
    answer = http.get("/v1/jobs", headers=bearer(settings))
    assert_problem(answer, 503)
    assert answer.headers["Retry-After"] == "2"
    health = http.get("/health")
    assert (health.status_code, health.get_json()["status"]) == (503, "unavailable")
    assert http.get("/health/live").status_code == 200


def test_every_answer_names_the_release_and_its_stack(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"stack_name": "green"}))
    release = f"{importlib.metadata.version('scorehouse')}+green"
    for path in ("/health/live", "/health", "/v1/jobs", "/no/such/route"):
        assert app.test_client().get(path).headers["Scorehouse-Release"] == release
    assert app.test_client().get("/health/live").get_json()["release"] == release
    app.extensions["scorehouse"].close()


def test_health_tells_the_workers_of_its_own_stack_from_others(settings: Settings, engine: Engine) -> None:
    app = create_app(settings.model_copy(update={"stack_name": "green"}))
    release = importlib.metadata.version("scorehouse")
    workers_of = {"blue": ["interactive", "bulk"], "green": ["bulk"]}
    with transaction(engine) as connection:
        for stack, lanes in workers_of.items():
            beats = {"versions": [], "refused": {}, "claimed": False}
            workers.beat(connection, owner=stack, worker=stack, lanes=lanes, release=f"{release}+{stack}", **beats)
    everything = app.test_client().get("/health").get_json()
    own = app.test_client().get("/health?release=self").get_json()
    assert (everything["workers"], everything["lanes"]) == (2, {"interactive": 1, "bulk": 2})
    assert (own["workers"], own["lanes"]) == (1, {"interactive": 0, "bulk": 1})
    assert own["releases"] == everything["releases"] == {f"{release}+blue": 1, f"{release}+green": 1}
    assert_problem(app.test_client().get("/health?release=other"), 422)
    app.extensions["scorehouse"].close()


def test_every_setting_is_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    rows = re.findall(r"^\| `SCOREHOUSE_([A-Z_]+)` \| ([^|]*) \| ([^|]+) \|$", page.read_text(), re.MULTILINE)
    told = {name.lower(): (default.strip(), meaning) for name, default, meaning in rows}
    assert told == {
        name: ("" if field.default is None else f"`{field.default}`", field.description)
        for name, field in Settings.model_fields.items()
    }


def test_every_tick_and_permit_is_consumed_by_a_worker_of_the_stack() -> None:
    """In a process of its own, because the application takes its settings when it is imported."""
    program = (
        "import json; from worker.tasks import app; "
        "print(json.dumps([sorted(app.tasks), [[e['task'], e['options']['queue']] for e in app.conf.beat_schedule.values()]]))"
    )
    environment = {**os.environ, "SCOREHOUSE_BROKER_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    tasks, scheduled = json.loads(done.stdout)
    consumed = {queue for lane in (*LANES, TRAINING) for queue in command_lines.queues([lane])}
    wanted = [*scheduled, *PERMITS.values()]
    assert {task for task, _ in wanted} == {name for name in tasks if not name.startswith("celery.")}
    assert {queue for _, queue in wanted} == consumed
