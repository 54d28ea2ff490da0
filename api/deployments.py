"""The routes of deployments: ask for one, follow it, cancel it, roll back, look at the history."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas
from api.auth import caller, scope
from api.context import context
from api.rendering import timestamp
from api.strict_json import parse_json
from db import deployments, models
from db.engine import transaction

blueprint = APIBlueprint("deployments", __name__, url_prefix="/v1/models", abp_tags=[Tag(name="deployments")])

# Workers end a deployment that stands still, and say more of why; this is for when there are none.
_GRACE_SECONDS = 10.0
# What a replay remembers between two pieces is nobody's business.
_INTERNAL = ("counters", "place", "over")


@blueprint.post("/<model>/deployments", responses={202: schemas.Deployment})
@scope("deploy")
def deploy(path: schemas.ModelPath, body: schemas.DeployRequest) -> Response:
    """Put a version into production, when every worker has loaded it and it was validated. Poll the deployment.

    Jobs in flight keep the version that they were pinned to. 409 while another deployment of the model is under way.
    """
    _expire()
    with transaction(context().engine) as connection:
        deployment_id = deployments.deploy(
            connection,
            caller().tenant,
            path.model,
            body.version,
            by=caller().subject,
            why=body.why,
            gate=None if body.gate is None else body.gate.model_dump(mode="json"),
        )
    context().publisher.want("deployment")
    return _answer(path.model, deployment_id, status=202)


@blueprint.post("/<model>/rollback", responses={202: schemas.Deployment})
@scope("deploy")
def rollback(path: schemas.ModelPath) -> Response:
    """Put the version that was in production before back, at once. A deployment that is under way fails."""
    text = request.get_data(cache=False)
    wanted = schemas.RollbackRequest.model_validate(parse_json(text) if text.strip() else {})
    with transaction(context().engine) as connection:
        deployment_id = deployments.rollback(
            connection, caller().tenant, path.model, by=caller().subject, why=wanted.why
        )
    return _answer(path.model, deployment_id, status=202)


@blueprint.get("/<model>/deployments", responses={200: schemas.DeploymentList})
@scope("models:read")
def history(path: schemas.ModelPath) -> Response:
    """The deployments of a model, newest first."""
    _expire()
    with transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, path.model)
        rows = deployments.listing(connection, row.id)
    return jsonify({"deployments": [deployment_document(path.model, found) for found in rows]})


@blueprint.get("/<model>/deployments/<uuid:id>", responses={200: schemas.Deployment})
@scope("models:read")
def show(path: schemas.DeploymentPath) -> Response:
    """Poll a deployment: its state, what each step has found, and what happened when."""
    _expire()
    return _answer(path.model, path.id)


@blueprint.post("/<model>/deployments/<uuid:id>/cancel", responses={200: schemas.Deployment})
@scope("deploy")
def cancel(path: schemas.DeploymentPath) -> Response:
    """End a deployment that is under way; production stays as it is."""
    with transaction(context().engine) as connection:
        deployments.cancel(connection, caller().tenant, path.model, path.id, by=caller().subject)
    return _answer(path.model, path.id)


def deployment_document(model: str, row: Any) -> dict[str, Any]:
    """A row of `deployments.listing` as `schemas.Deployment`, without its events."""
    mapping = row._mapping
    return {
        "id": str(row.id),
        "model": model,
        "version": row.to,
        "kind": row.kind,
        "state": row.state,
        "from": mapping["from"],
        "to": row.to,
        "slot": row.slot,
        "gate": row.gate,
        "checks": {step: _shown(check) for step, check in row.checks.items()},
        "reasons": row.reasons,
        "by": row.by,
        "why": row.why,
        "created_at": timestamp(row.created_at),
        "finished_at": timestamp(row.finished_at),
    }


def _answer(model: str, deployment_id: UUID, status: int = 200) -> Response:
    with transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, model)
        found = deployments.one(connection, row.id, model, deployment_id)
        events = deployments.events(connection, deployment_id)
    document = deployment_document(model, found)
    document["events"] = [
        {"at": timestamp(event.at), "state": event.state, "message": event.message, "by": event.by} for event in events
    ]
    response = jsonify(document)
    response.status_code = status
    if status == 202:
        response.headers["Location"] = f"/v1/models/{model}/deployments/{deployment_id}"
    return response


def _expire() -> None:
    with transaction(context().engine) as connection:
        deployments.expire(connection, context().settings.deploy_timeout_seconds + _GRACE_SECONDS)


def _shown(check: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in check.items() if name not in _INTERNAL}
