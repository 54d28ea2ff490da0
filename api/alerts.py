"""Alerts over HTTP: which stand, what became of them, and that somebody has seen them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas
from api.auth import caller, scope
from api.context import context
from api.rendering import timestamp
from api.trail import record
from db import alerts, trail
from db.engine import transaction
from monitoring.alerts import AlertState, Transition, acknowledge, suppress

blueprint = APIBlueprint("alerts", __name__, url_prefix="/v1/alerts", abp_tags=[Tag(name="alerts")])

_HISTORY = 20


@blueprint.get("", responses={200: schemas.AlertList})
@scope("audits:read")
def listing(query: schemas.AlertQuery) -> Response:
    """List alerts, the last changed first; those that are open unless a state is named."""
    with transaction(context().engine) as connection:
        rows = alerts.page(
            connection,
            caller().tenant,
            model_name=query.model,
            states=None if query.state is None else [query.state],
            limit=query.limit,
        )
    return jsonify({"alerts": [_document(row) for row in rows]})


@blueprint.get("/<uuid:id>", responses={200: schemas.Alert})
@scope("audits:read")
def show(path: schemas.AlertPath) -> Response:
    """An alert with its transitions."""
    return _answer(path)


@blueprint.post("/<uuid:id>/ack", responses={200: schemas.Alert})
@scope("deploy")
def ack(path: schemas.AlertPath) -> Response:
    """Say that somebody has seen it: it stays quiet until it resolves or gets worse."""
    by = caller().subject
    return _changed(path, "alert.acknowledged", lambda state, now: acknowledge(state, by, now))


@blueprint.post("/<uuid:id>/suppress", responses={200: schemas.Alert})
@scope("deploy")
def quiet(path: schemas.AlertPath, body: schemas.SuppressRequest) -> Response:
    """Hear nothing of it until a time."""
    by = caller().subject
    return _changed(path, "alert.suppressed", lambda state, now: suppress(state, body.until, by, now))


def _changed(
    path: schemas.AlertPath,
    act: trail.Act,
    change: Callable[[AlertState, datetime], tuple[AlertState, Transition | None]],
) -> Response:
    with transaction(context().engine) as connection:
        row = alerts.get(connection, caller().tenant, path.id, lock=True)
        state, transition = change(AlertState.model_validate(row.machine), datetime.now(UTC))
        alerts.put(
            connection,
            model_id=row.model_id,
            version_id=row.version_id,
            column=row.column_name,
            check=row.check,
            machine=state.model_dump(mode="json"),
        )
        if transition is not None:
            alerts.record(
                connection, row.id, origin=row.state, to=state.state, by=caller().subject, document={}, quiet=True
            )
        details = {"model": row.model, "column": row.column_name, "check": row.check, "state": state.state}
        record(connection, act, str(row.id), details)
    return _answer(path)


def _answer(path: schemas.AlertPath) -> Response:
    with transaction(context().engine) as connection:
        row = alerts.get(connection, caller().tenant, path.id)
        events = alerts.events(connection, row.id, _HISTORY)
    return jsonify(_document(row) | {"events": [_event(event) for event in events]})


def _document(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "model": row.model,
        "model_version": row.model_version,
        "column": row.column_name,
        "check": row.check,
        "state": row.state,
        "severity": row.severity,
        "value": row.value,
        "created_at": timestamp(row.created_at),
        "changed_at": timestamp(row.changed_at),
    }


def _event(row: Any) -> dict[str, Any]:
    return {
        "at": timestamp(row.at),
        "from": row.from_state,
        "to": row.to_state,
        "by": row.by,
        "deliveries": row.deliveries,
        "next_attempt_at": timestamp(row.next_attempt_at),
    }
