"""The audit trail over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from sqlalchemy import Connection

from api import schemas_tokens as schemas
from api.auth import caller, scope
from api.context import context
from api.rendering import timestamp
from db import trail
from db.engine import transaction

blueprint = APIBlueprint("trail", __name__, url_prefix="/v1/audit-trail", abp_tags=[Tag(name="audit trail")])


@blueprint.get("", responses={200: schemas.Trail})
@scope("admin")
def listing(query: schemas.TrailQuery) -> Response:
    """List who did which privileged act in your tenant, the last one first."""
    with transaction(context().engine) as connection:
        rows = trail.page(
            connection, caller().tenant, act=query.act, by=query.by, after=query.after, limit=query.limit + 1
        )
    shown = [entry_document(row) for row in rows[: query.limit]]
    return jsonify({"entries": shown, "next": shown[-1]["id"] if len(rows) > query.limit else None})


def record(connection: Connection, act: trail.Act, target: str, details: dict[str, Any]) -> None:
    """Add what the caller of the current request does to the transaction that does it."""
    trail.record(connection, tenant=caller().tenant, by=caller().subject, act=act, target=target, details=details)


def entry_document(row: Any) -> dict[str, Any]:
    """A row of `audit_trail` as `schemas.TrailEntry`."""
    return {
        "id": str(row.id),
        "at": timestamp(row.at),
        "tenant": row.tenant,
        "by": row.by,
        "act": row.act,
        "target": row.target,
        "details": row.details,
        "token": row.token_jti,
    }
