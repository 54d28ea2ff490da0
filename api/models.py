"""The routes of models: register versions and look at them."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import registration, schemas
from api.auth import caller, scope
from api.context import context
from api.deployments import deployment_document
from api.rendering import timestamp
from api.upload_places import upload_place
from db import deployments, models, slots, versions
from db.engine import transaction
from errors import NotFound

blueprint = APIBlueprint("models", __name__, url_prefix="/v1/models", abp_tags=[Tag(name="models")])


@blueprint.post("/<model>/versions", responses={202: schemas.ModelVersion})
@scope("models:write")
def register(path: schemas.ModelPath, raw: schemas.RegistrationBody) -> Response:
    """Register a version: upload its artefact and its reference; a worker examines them. Poll the version."""
    with upload_place():
        new = registration.receive(path.model)
    with transaction(context().engine) as connection:
        models.add_version(connection, new, context().limits.of(caller().tenant))
    context().publisher.want("register")
    response = _version(path.model, new.version)
    response.status_code = 202
    response.headers["Location"] = f"/v1/models/{path.model}/versions/{new.version}"
    response.headers["Retry-After"] = "1"
    return response


@blueprint.get("", responses={200: schemas.ModelList})
@scope("models:read")
def listing() -> Response:
    """List models."""
    with transaction(context().engine) as connection:
        rows = models.listing(connection, caller().tenant)
    return jsonify({"models": [{**row._mapping, "created_at": timestamp(row.created_at)} for row in rows]})


@blueprint.get("/<model>", responses={200: schemas.Model})
@scope("models:read")
def show(path: schemas.ModelPath) -> Response:
    """A model with its aliases and versions."""
    with transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, path.model)
        aliases = models.aliases(connection, row.id)
        held = slots.held(connection, row)
        past = deployments.listing(connection, row.id)
        found = versions.listing(connection, row.id)
    return jsonify(
        {
            "name": row.name,
            "aliases": {alias: aliases.get(alias) for alias in ("production", "candidate", "previous")},
            "slots": held,
            "live_slot": row.live_slot,
            "versions": [_version_document(path.model, version, past) for version in found],
            "created_at": timestamp(row.created_at),
        }
    )


@blueprint.get("/<model>/versions/<version>", responses={200: schemas.ModelVersion})
@scope("models:read")
def show_version(path: schemas.VersionPath) -> Response:
    """A version: its stage, signature, metrics, lineage and deployments."""
    return _version(path.model, path.version)


@blueprint.get("/<model>/versions/<version>/metrics", responses={200: schemas.MetricsHistory})
@scope("models:read")
def metrics(path: schemas.VersionPath, query: schemas.MetricsQuery) -> Response:
    """How well a version did: at its registration, and at each accuracy audit since, newest first."""
    with transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, path.model)
        found = versions.listing(connection, row.id, path.version)
        audits = versions.accuracy_audits(connection, found[0].id, query.limit) if found else []
    if not found:
        raise NotFound(f"model {path.model!r} has no version {path.version}")
    history = [_audited(audit) for audit in audits] + _registered(found[0])
    return jsonify({"model": path.model, "version": path.version, "metrics": history})


def _version(model: str, version: str) -> Response:
    with transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, model)
        found = versions.listing(connection, row.id, version)
        past = deployments.listing(connection, row.id)
    if not found:
        raise NotFound(f"model {model!r} has no version {version}")
    return jsonify(_version_document(model, found[0], past))


def _version_document(model: str, row: Any, past: Any) -> dict[str, Any]:
    return {
        "model": model,
        "version": row.version,
        "state": row.state,
        "stage": row.stage,
        "digest": row.digest,
        "format": row.format,
        "runtime": row.runtime,
        "compiled": row.compiled,
        "seconds_per_row": row.seconds_per_row,
        "size": row.size,
        "signature": row.signature,
        "metrics": row.metrics,
        "lineage": {**row.declared, **(row.lineage or {})},
        "mismatch_allowed": row.mismatch_allowed,
        "created_at": timestamp(row.created_at),
        "created_by": row.created_by,
        "error": row.error,
        "deployments": [deployment_document(model, found) for found in past if found.to_version_id == row.id],
    }


def _audited(row: Any) -> dict[str, Any]:
    document = row.document
    return {
        "source": "audit",
        "at": timestamp(row.finished_at),
        "audit": str(row.id),
        "status": row.status,
        "window": document["window"],
        "rows": document["labelled"],
        "metrics": document["metrics"],
    }


def _registered(row: Any) -> list[dict[str, Any]]:
    """The metrics on the reference; none when it has no target."""
    if not row.metrics:
        return []
    values = {name: {"value": value} for name, value in row.metrics.items() if name != "rows"}
    about = {"audit": None, "status": None, "window": None, "rows": int(row.metrics["rows"])}
    return [{"source": "registration", "at": timestamp(row.created_at), **about, "metrics": values}]
