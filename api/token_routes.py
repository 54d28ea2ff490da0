"""Tokens over HTTP: a tenant's admin makes, lists and revokes those of the own tenant.

Tokens for another tenant are made by whoever holds the signing key, on the command line. An outside issuer makes its own.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas_tokens as schemas
from api.auth import caller, scope
from api.context import context
from api.issuing import issue
from api.rendering import timestamp
from api.strict_json import parse_json
from api.tokens import Caller
from db import tokens
from db.engine import transaction
from errors import Forbidden, InvalidInput, Problem

blueprint = APIBlueprint("tokens", __name__, url_prefix="/v1/tokens", abp_tags=[Tag(name="tokens")])


@blueprint.post("", responses={201: schemas.NewToken})
@scope("admin")
def create(body: schemas.TokenRequest) -> Response:
    """Make a token of your tenant. It can do nothing that yours cannot, ends no later, and is revoked with yours."""
    _check(body, caller())
    with transaction(context().engine) as connection:
        try:
            made = issue(
                connection,
                context().settings,
                by=caller().subject,
                subject=body.subject,
                tenant=caller().tenant,
                scopes=body.scopes,
                ttl=timedelta(seconds=body.ttl_seconds),
                parent=caller(),
            )
        except ValueError as exc:
            raise InvalidInput(str(exc), [Problem(str(exc), "#")]) from exc
        row = tokens.get(connection, caller().tenant, made.jti)
    response = jsonify({"token": made.text, **token_document(row)})
    response.status_code = 201
    return response


@blueprint.get("", responses={200: schemas.TokenList})
@scope("admin")
def listing(query: schemas.TokenQuery) -> Response:
    """List the tokens of your tenant that are on record, the last made first."""
    after = None if query.after is None else str(query.after)
    with transaction(context().engine) as connection:
        rows = tokens.page(connection, caller().tenant, subject=query.subject, after=after, limit=query.limit + 1)
    shown = [token_document(row) for row in rows[: query.limit]]
    return jsonify({"tokens": shown, "next": shown[-1]["jti"] if len(rows) > query.limit else None})


@blueprint.post("/<uuid:id>/revoke", responses={200: schemas.Token})
@scope("admin")
def revoke(path: schemas.TokenPath) -> Response:
    """End a token of your tenant, and those that were made with it, within seconds. Twice is the same as once."""
    text = request.get_data(cache=False)
    wanted = schemas.RevokeRequest.model_validate(parse_json(text) if text.strip() else {})
    with transaction(context().engine) as connection:
        tokens.revoke(connection, caller().tenant, str(path.id), by=caller().subject, why=wanted.why)
        row = tokens.get(connection, caller().tenant, str(path.id))
    context().revocations.changed()
    return jsonify(token_document(row))


def token_document(row: Any) -> dict[str, Any]:
    """A row of `token` as `schemas.Token`."""
    return {
        "jti": row.jti,
        "kid": row.kid,
        "subject": row.subject,
        "tenant": row.tenant,
        "scopes": row.scopes,
        "created_at": timestamp(row.created_at),
        "created_by": row.created_by,
        "expires_at": timestamp(row.expires_at),
        "revoked_at": timestamp(row.revoked_at),
        "revoked_by": row.revoked_by,
        "why": row.why,
    }


def _check(wanted: schemas.TokenRequest, caller: Caller) -> None:
    """Raises Forbidden for what the caller's own token does not open, or not for as long."""
    if not caller.own:
        raise Forbidden("your token is of an outside issuer: get others from there, or from whoever runs this API")
    wider = sorted(scope for scope in wanted.scopes if not caller.has(scope))
    if wider:
        raise Forbidden(f"your token does not have {' '.join(wider)}, so it cannot make one that does")
    left = int(caller.expires - time.time())
    if wanted.ttl_seconds > left:
        raise Forbidden(f"your token ends in {left} s; one that it makes cannot live longer: set ttl_seconds to {left}")
