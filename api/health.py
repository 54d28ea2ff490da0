"""Health: is the process alive, can it take requests, and can the whole house score?"""

from __future__ import annotations

from importlib.metadata import version as release_of
from typing import Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas
from api.auth import PUBLIC, scope
from api.context import context
from db import models, workers
from db.engine import transaction
from errors import Unavailable

blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])


@blueprint.get("/health/live", responses={200: schemas.Health})
@scope(PUBLIC)
def live() -> Response:
    """This process answers."""
    return jsonify({"status": "ok", "release": release_of("scorehouse")})


@blueprint.get("/health/ready", responses={200: schemas.Health, 503: schemas.Health})
@scope(PUBLIC)
def ready() -> Response:
    """This process can take submissions: the database answers."""
    document = _document()
    return _answer(document, ok=document["database"] == "ok")


@blueprint.get("/health", responses={200: schemas.Health, 503: schemas.Health})
@scope(PUBLIC)
def health() -> Response:
    """The database answers, and a live worker holds each model in production."""
    document = _document()
    whole = document["workers"] > 0 and all(state == "ready" for state in document["models"].values())
    return _answer(document, ok=document["database"] == "ok" and whole)


def _document() -> dict[str, Any]:
    document: dict[str, Any] = {"database": "ok", "workers": 0, "models": {}, "release": release_of("scorehouse")}
    try:
        with transaction(context().engine) as connection:
            children = workers.live(connection)
            production = models.in_production(connection)
    except Unavailable as exc:
        return {**document, "database": str(exc)}
    held = {digest for child in children for digest in child.versions}
    refused = {digest: reason for child in children for digest, reason in child.refused.items()}
    document["workers"] = len(children)
    document["models"] = {
        f"{version.model}@{version.version}": (
            "ready" if version.digest in held else refused.get(version.digest, "no live worker holds it")
        )
        for version in production
    }
    return document


def _answer(document: dict[str, Any], *, ok: bool) -> Response:
    response = jsonify({"status": "ok" if ok else "unavailable", **document})
    response.status_code = 200 if ok else 503
    return response
