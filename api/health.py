"""Health: is the process alive, can it take requests, and can the whole house score?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import Flask, Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas
from api.auth import PUBLIC, scope, visible_tenants
from api.context import context
from db import models, workers
from db.engine import transaction
from errors import Unavailable
from migrations import schema_of
from permits import LANES

blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])

RELEASE_HEADER = "Scorehouse-Release"


def install(app: Flask, release: str) -> None:
    """Name the release in every answer: who switches between two stacks sees which one a proxy asked."""

    @app.after_request
    def name_release(response: Response) -> Response:
        response.headers[RELEASE_HEADER] = release
        return response


@blueprint.get("/health/live", responses={200: schemas.Alive})
@scope(PUBLIC)
def live() -> Response:
    """This process answers."""
    return jsonify({"status": "ok", "release": context().settings.release})


@blueprint.get("/health/ready", responses={200: schemas.Health, 503: schemas.Health})
@scope(PUBLIC)
def ready() -> Response:
    """This process can take submissions: the database answers and has the schema that this release needs."""
    document = _document(None)
    return _answer(document, ok=document["database"] == "ok")


@blueprint.get("/health", responses={200: schemas.Health, 503: schemas.Health})
@scope(PUBLIC)
def health(query: schemas.HealthQuery) -> Response:
    """The database answers, and a live worker holds each model in production.

    Names of models are for their tenant's tokens, and for the machine itself while the API listens on loopback only.
    With `release=self` only workers of this API's own release and stack count: could it do without the other stack?
    """
    document = _document(context().settings.release if query.release == "self" else None)
    whole = document["workers"] > 0 and document["models_missing"] == 0
    return _answer(document, ok=document["database"] == "ok" and whole)


def _document(release: str | None) -> dict[str, Any]:
    """What is there, counting the workers of one release or of all."""
    document: dict[str, Any] = {
        "database": "ok",
        "workers": 0,
        "lanes": dict.fromkeys(LANES, 0),
        "models": {},
        "models_missing": 0,
        "release": context().settings.release,
        "releases": {},
    }
    try:
        with transaction(context().system_engine) as connection:
            schema = schema_of(connection)
            if not schema.fits:
                return {**document, "database": schema.told}
            every = workers.live(connection)
            production = models.in_production(connection)
    except Unavailable as exc:
        return {**document, "database": str(exc)}
    children = [child for child in every if release in (None, child.release)]
    held = {digest for child in children for digest in child.versions}
    refused = {digest: reason for child in children for digest, reason in child.refused.items()}
    document["workers"] = len(children)
    document["lanes"] = {lane: sum(lane in child.lanes for child in children) for lane in LANES}
    seen = visible_tenants({version.tenant for version in production})
    document["models"] = {
        f"{version.model}@{version.version}": (
            "ready" if version.digest in held else refused.get(version.digest, "no live worker holds it")
        )
        for version in production
        if version.tenant in seen
    }
    document["models_missing"] = sum(version.digest not in held for version in production)
    document["releases"] = dict(sorted(Counter(child.release for child in every).items()))
    return document


def _answer(document: dict[str, Any], *, ok: bool) -> Response:
    response = jsonify({"status": "ok" if ok else "unavailable", **document})
    response.status_code = 200 if ok else 503
    return response
