"""Audits over HTTP: the latest results, an audit on demand, how a model is audited by schedule."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import reports, schemas
from api.auth import caller, scope
from api.context import context
from api.rendering import timestamp
from api.trail import record
from db import audits, models
from db.audits import Policy, Request
from db.engine import transaction
from errors import NotFound

blueprint = APIBlueprint("audits", __name__, url_prefix="/v1", abp_tags=[Tag(name="audits")])

_HOURS = {"h": 1, "d": 24, "w": 168}
# A report shows text of callers: nothing of it runs, loads, is sent anywhere, or is shown within another page.
_REPORT_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_WINDOW = re.compile(r"(\d+)([hdw])")


@blueprint.get("/models/<model>/drift", responses={200: schemas.DriftDocument})
@scope("audits:read")
def drift(path: schemas.ModelPath, query: schemas.AuditQuery) -> Response:
    """The latest drift audit: each column of the inputs, and the prediction, against the reference."""
    return _latest(path.model, "drift", query.window)


@blueprint.get("/models/<model>/accuracy", responses={200: schemas.AccuracyDocument})
@scope("audits:read")
def accuracy(path: schemas.ModelPath, query: schemas.AuditQuery) -> Response:
    """The latest accuracy audit: what came true of the predictions, with intervals and coverage."""
    return _latest(path.model, "accuracy", query.window)


@blueprint.get("/models/<model>/audits", responses={200: schemas.AuditList})
@scope("audits:read")
def history(path: schemas.ModelPath, query: schemas.AuditHistoryQuery) -> Response:
    """The audits of a model that are done, newest window first."""
    with transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, path.model)
        rows = audits.latest(connection, row.id, query.kind, window=_length(query.window), limit=query.limit)
    return jsonify({"audits": [_document(found) for found in rows]})


@blueprint.post("/models/<model>/audits", responses={202: schemas.Audit})
@scope("audits:read")
def ask(path: schemas.ModelPath, body: schemas.AuditRequest) -> Response:
    """Audit a window now: 202, poll /v1/audits/{id}."""
    with transaction(context().engine) as connection:
        version = models.pinned(connection, caller().tenant, path.model, body.version)
        model = models.get(connection, caller().tenant, path.model)
        end = body.end or datetime.now(UTC)
        wanted = Request(
            kind=body.kind,
            model_id=model.id,
            version_id=version.id,
            start=end - length_of(body.window),
            end=end,
            configuration=audits.policy(connection, model.id).configuration,
            alerting=body.alert,
        )
        row = audits.by_id(connection, caller().tenant, audits.request(connection, wanted))
    context().publisher.want("audit")
    response = jsonify(_document(row))
    response.status_code = 202
    response.headers["Location"] = f"/v1/audits/{row.id}"
    response.headers["Retry-After"] = "1"
    return response


@blueprint.get("/audits/<uuid:id>", responses={200: schemas.Audit})
@scope("audits:read")
def show(path: schemas.AuditPath) -> Response:
    """Poll an audit."""
    with transaction(context().engine) as connection:
        row = audits.by_id(connection, caller().tenant, path.id)
    return jsonify(_document(row))


@blueprint.get("/audits/<uuid:id>/report", responses=schemas.stream("text/html"))
@scope("audits:read")
def report(path: schemas.AuditPath) -> Response:
    """Read an audit as a page of HTML that needs nothing else; 409 until it is done."""
    page = reports.page(context().engine, caller().tenant, path.id)
    return Response(page, mimetype="text/html", headers=_REPORT_HEADERS)


@blueprint.get("/models/<model>/audit-policy", responses={200: schemas.AuditPolicy})
@scope("audits:read")
def policy(path: schemas.ModelPath) -> Response:
    """How a model is audited by schedule."""
    with transaction(context().engine) as connection:
        found = audits.policy(connection, models.get(connection, caller().tenant, path.model).id)
    return jsonify(schemas.AuditPolicy.model_validate(found, from_attributes=True).model_dump())


@blueprint.put("/models/<model>/audit-policy", responses={200: schemas.AuditPolicy})
@scope("deploy")
def set_policy(path: schemas.ModelPath, body: schemas.AuditPolicy) -> Response:
    """Say how a model is to be audited."""
    with transaction(context().engine) as connection:
        model = models.get(connection, caller().tenant, path.model)
        audits.set_policy(connection, model.id, Policy(**body.model_dump()))
        record(connection, "audit_policy.changed", path.model, body.model_dump(mode="json"))
    return jsonify(body.model_dump())


def length_of(window: str) -> timedelta:
    """`24h`, `7d`, `4w` as a length of time."""
    found = _WINDOW.fullmatch(window)
    assert found is not None, "the schema checks it"
    return timedelta(hours=int(found[1]) * _HOURS[found[2]])


def _length(window: str | None) -> timedelta | None:
    return None if window is None else length_of(window)


def _latest(name: str, kind: str, window: str | None) -> Response:
    with transaction(context().engine) as connection:
        model = models.get(connection, caller().tenant, name)
        rows = audits.latest(connection, model.id, kind, window=_length(window))
    if not rows:
        of_window = "" if window is None else f" of a window of {window}"
        raise NotFound(
            f"there is no {kind} audit{of_window} of model {name!r} yet; ask for one: "
            f"`scorehouse audit {kind} {name}{'' if window is None else f' --window {window}'}`"
        )
    return jsonify(rows[0].document)


def _document(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "kind": row.kind,
        "model": row.model,
        "model_version": row.model_version,
        "state": row.state,
        "status": row.status,
        "window": {"start": timestamp(row.window_start), "end": timestamp(row.window_end)},
        "created_at": timestamp(row.created_at),
        "finished_at": timestamp(row.finished_at),
        "error": row.error,
        "document": row.document if row.state == "done" else None,
        "links": {"self": f"/v1/audits/{row.id}", "report": f"/v1/audits/{row.id}/report"},
    }
