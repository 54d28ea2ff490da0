"""The OpenAPI document, generated from the code, and a page to read and try it."""

from __future__ import annotations

import copy
from functools import cache
from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, abort, current_app, jsonify
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel

from api import schemas, schemas_tokens
from api.auth import PUBLIC, required_scope, scope

blueprint = Blueprint("docs", __name__)

_ASSETS = {"swagger-ui-bundle.js": "js", "swagger-ui.css": "css"}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Scorehouse: HTTP reference</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="reference"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
# By path: what views take as JSON although the library sees a raw body, or none.
_JSON_BODIES: dict[str, type[BaseModel]] = {
    "/v1/jobs": schemas.JobRequest,
    "/v1/jobs/{id}/retry": schemas.RetryRequest,
    "/v1/models/{model}/rollback": schemas.RollbackRequest,
    "/v1/tokens/{id}/revoke": schemas_tokens.RevokeRequest,
}
_PROBLEM = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
}
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#reference", deepLinking: true});\n'
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def install(app: OpenAPI) -> None:
    app.register_blueprint(blueprint)


@blueprint.get("/openapi.json")
@scope(PUBLIC)
def document() -> Response:
    assert isinstance(current_app, OpenAPI) or hasattr(current_app, "api_doc")
    return jsonify(openapi(current_app._get_current_object()))  # type: ignore[attr-defined]


@blueprint.get("/docs")
@scope(PUBLIC)
def page() -> Response:
    return Response(_PAGE, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})


@blueprint.get("/docs/<name>")
@scope(PUBLIC)
def asset(name: str) -> Response:
    if name == "start.js":
        return Response(_START, mimetype="text/javascript")
    if name not in _ASSETS:
        abort(404)
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    return Response(_asset(name), mimetype=kind, headers={"Cache-Control": "max-age=3600"})


def openapi(app: OpenAPI) -> dict[str, Any]:
    """The document, with the scope that each operation needs taken from where it is enforced.

    Added is what the library cannot see: bodies that views read by themselves, and that errors are problem documents.
    """
    found: dict[str, Any] = copy.deepcopy(app.api_doc)
    for path, model in _JSON_BODIES.items():
        operation = found["paths"][path]["post"]
        content = operation.setdefault("requestBody", {"content": {}})["content"]
        content["application/json"] = {"schema": model.model_json_schema()}
    for operations in found["paths"].values():
        for operation in operations.values():
            operation["responses"]["default"] = _PROBLEM
            operation["responses"].pop("422", None)
    for rule in app.url_map.iter_rules():
        operations = found["paths"].get(_template(rule.rule), {})
        needed = required_scope(app.view_functions[rule.endpoint])
        for method in rule.methods or ():
            if method.lower() in operations:
                operations[method.lower()]["security"] = [] if needed == PUBLIC else [{"bearer": [needed]}]
    return found


def _template(rule: str) -> str:
    """Flask's `/jobs/<uuid:id>` as OpenAPI's `/jobs/{id}`."""
    return "".join(
        part if place % 2 == 0 else "{" + part.partition(":")[2] + "}" if ":" in part else "{" + part + "}"
        for place, part in enumerate(rule.replace(">", "<").split("<"))
    )


@cache
def _asset(name: str) -> bytes:
    return files("flask_openapi3_swagger").joinpath("templates", "swagger", _ASSETS[name], name).read_bytes()
