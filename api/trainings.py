"""Retraining over HTTP: ask for one, follow it, and say how a model is retrained."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas
from api.auth import caller, scope
from api.context import context
from api.rendering import timestamp
from api.strict_json import parse_json
from api.trail import record
from db import models, trainings
from db.engine import transaction
from db.trainings import Policy
from errors import InvalidInput, Problem

blueprint = APIBlueprint("trainings", __name__, url_prefix="/v1/models", abp_tags=[Tag(name="trainings")])


@blueprint.post("/<model>/trainings", responses={202: schemas.Training})
@scope("models:write")
def ask(path: schemas.ModelPath) -> Response:
    """Retrain a model on what was scored and came true: 202, poll the training. The same trigger is the same training."""
    text = request.get_data(cache=False)
    wanted = schemas.TrainingRequest.model_validate(parse_json(text) if text.strip() else {})
    with transaction(context().engine) as connection:
        model = models.get(connection, caller().tenant, path.model)
        run_id = trainings.request(connection, model.id, "hand", _trigger(wanted.trigger), by=caller().subject)
        row = trainings.get(connection, model.id, run_id)
        record(connection, "training.asked", path.model, {"training": str(run_id)})
    context().publisher.want("train")
    response = jsonify(_document(row))
    response.status_code = 202
    response.headers["Location"] = f"/v1/models/{path.model}/trainings/{row.id}"
    response.headers["Retry-After"] = "1"
    return response


@blueprint.get("/<model>/trainings", responses={200: schemas.TrainingList})
@scope("models:read")
def listing(path: schemas.ModelPath, query: schemas.TrainingQuery) -> Response:
    """List the trainings of a model, the last one first."""
    with transaction(context().engine) as connection:
        model = models.get(connection, caller().tenant, path.model)
        rows = trainings.page(connection, model.id, query.limit)
    return jsonify({"trainings": [_document(row) for row in rows]})


@blueprint.get("/<model>/trainings/<uuid:id>", responses={200: schemas.Training})
@scope("models:read")
def show(path: schemas.TrainingPath) -> Response:
    """Poll a training: its figures and what was decided."""
    return jsonify(_document(_run(path.model, path.id)))


@blueprint.get("/<model>/training-policy", responses={200: schemas.TrainingPolicy})
@scope("models:read")
def policy(path: schemas.ModelPath) -> Response:
    """How a model is retrained."""
    with transaction(context().engine) as connection:
        found = trainings.policy(connection, models.get(connection, caller().tenant, path.model).id)
    return jsonify(schemas.TrainingPolicy.model_validate(found, from_attributes=True).model_dump())


@blueprint.put("/<model>/training-policy", responses={200: schemas.TrainingPolicy})
@scope("models:write")
def set_policy(path: schemas.ModelPath, body: schemas.TrainingPolicy) -> Response:
    """Say how a model is to be retrained. To let it promote by itself takes the scope `deploy` too."""
    if body.promotion != "manual":
        caller().require("deploy")
    with transaction(context().engine) as connection:
        model = models.get(connection, caller().tenant, path.model)
        trainings.set_policy(connection, model.id, Policy(**body.model_dump()))
        record(connection, "training_policy.changed", path.model, body.model_dump(mode="json"))
    return jsonify(body.model_dump())


def _trigger(named: str | None) -> str:
    """What makes two requests the same: the header, else the body's trigger, else nothing."""
    header = request.headers.get("Idempotency-Key")
    if header is not None and not 1 <= len(header) <= 200:
        detail = "the Idempotency-Key has 1 to 200 characters; shorten it"
        raise InvalidInput(detail, [Problem(detail, "#/header/Idempotency-Key")])
    return header or named or str(uuid4())


def _run(model: str, run_id: UUID) -> Any:
    with transaction(context().engine) as connection:
        return trainings.get(connection, models.get(connection, caller().tenant, model).id, run_id)


def _document(row: Any) -> dict[str, Any]:
    decision = (row.document or {}).get("decision") or {}
    return {
        "id": str(row.id),
        "model": row.model,
        "state": row.state,
        "trigger": {"kind": row.trigger_kind, "key": row.trigger_key},
        "champion": row.champion,
        "challenger": row.challenger,
        "promoted": bool(decision.get("promoted")),
        "reason": row.error or decision.get("reason"),
        "document": row.document,
        "attempts": row.attempts,
        "by": row.by,
        "created_at": timestamp(row.created_at),
        "started_at": timestamp(row.started_at),
        "finished_at": timestamp(row.finished_at),
    }
