"""What the caller's tenant may use, and what it uses."""

from __future__ import annotations

from typing import Any

from flask import Response, g, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.auth import caller, scope
from api.context import context
from api.rendering import timestamp
from api.schemas_quota import Quota
from db import usage
from db.engine import transaction
from db.quotas import Quotas
from db.usage import Usage

blueprint = APIBlueprint("quota", __name__, url_prefix="/v1/quota", abp_tags=[Tag(name="quota")])


@blueprint.get("", responses={200: Quota})
@scope("jobs:read")
def show() -> Response:
    """Show what the tenant may use, what it uses, and when that is free again."""
    tenant = caller().tenant
    limits = context().limits.of(tenant)
    with transaction(context().engine) as connection:
        used = usage.of(connection, tenant)

    document = quota_document(tenant, limits, used)
    standing = g.get("standing")
    document["requests_per_second"]["remaining"] = None if standing is None else standing.remaining
    return jsonify(document)


def quota_document(tenant: str, limits: Quotas, used: Usage) -> dict[str, Any]:
    """As `schemas_quota.Quota`, but for the requests that remain, which only a process of the API knows."""

    def counted(name: str) -> dict[str, Any]:
        limit, number = getattr(limits, name), getattr(used, name)
        left = None if limit is None else max(limit - number, 0)
        return {"limit": limit, "used": number, "remaining": left}

    return {
        "tenant": tenant,
        "rows_per_day": {**counted("rows_per_day"), "resets_at": timestamp(used.midnight)},
        "bytes_stored": counted("bytes_stored"),
        "jobs_open": counted("jobs_open"),
        "uploads_at_once": counted("uploads_at_once"),
        "requests_per_second": {"limit": limits.requests_per_second, "burst": limits.burst},
    }
