"""The routes of models: register versions and look at them."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas
from api.auth import caller, scope
from api.bodies import Multipart
from api.context import context
from api.deployments import deployment_document
from api.rendering import timestamp
from db import deployments, models, slots
from db.engine import transaction
from db.models import NewVersion
from errors import InvalidInput, NotFound, Problem, UnsupportedMedia

blueprint = APIBlueprint("models", __name__, url_prefix="/v1/models", abp_tags=[Tag(name="models")])

_FORMATS = {".joblib": "joblib", ".pkl": "joblib", ".pickle": "joblib", ".skops": "skops"}
_RUNS_CODE = {"joblib"}


@blueprint.post("/<model>/versions", responses={202: schemas.ModelVersion})
@scope("models:write")
def register(path: schemas.ModelPath, raw: schemas.RegistrationBody) -> Response:
    """Register a version: upload its artefact and its reference; a worker examines them. Poll the version."""
    new = _receive(path.model)
    with transaction(context().engine) as connection:
        models.add_version(connection, new)
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
        versions = models.versions(connection, row.id)
    return jsonify(
        {
            "name": row.name,
            "aliases": {alias: aliases.get(alias) for alias in ("production", "candidate", "previous")},
            "slots": held,
            "live_slot": row.live_slot,
            "versions": [_version_document(path.model, version, past) for version in versions],
            "created_at": timestamp(row.created_at),
        }
    )


@blueprint.get("/<model>/versions/<version>", responses={200: schemas.ModelVersion})
@scope("models:read")
def show_version(path: schemas.VersionPath) -> Response:
    """A version: its state, signature, metrics, lineage and deployments."""
    return _version(path.model, path.version)


def _receive(model: str) -> NewVersion:
    """Read the form from front to back: fields, then the two files, which go to the store as they arrive."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMedia(
            "send multipart/form-data with the fields first, then the files `reference` and `artefact`"
        )
    form, settings, store = Multipart(request), context().settings, context().store
    stored: dict[str, tuple[str, int, str]] = {}
    fields: schemas.RegistrationFields | None = None
    known: dict[str, str] = {}
    while (part := form.next_file()) is not None:
        if part.name not in {"reference", "artefact"}:
            raise InvalidInput(
                f"unexpected file {part.name!r}; send `reference` and `artefact`",
                [Problem("is unexpected", f"#/{part.name}")],
            )
        if fields is None:
            known = dict(form.fields)
            fields = schemas.RegistrationFields.model_validate(known)
        kind = _format(part.filename, trusted=fields.trust) if part.name == "artefact" else "csv"
        digest, size = store.put(part.blocks, settings.max_artefact_bytes)
        stored[part.name] = (digest, size, kind)
    missing = [name for name in ("reference", "artefact") if name not in stored]
    if missing or fields is None:
        raise InvalidInput(
            f"the form lacks the file {' and '.join(missing)}",
            [Problem("is required", f"#/{name}") for name in missing],
        )
    form.check_nothing_after(known)
    if fields.runtime == "onnx":
        raise InvalidInput(
            "this release scores with scikit-learn only; register with runtime auto or sklearn",
            [Problem("is not available", "#/runtime")],
        )
    digest, size, kind = stored["artefact"]
    return NewVersion(
        tenant=caller().tenant,
        model=model,
        version=fields.version,
        digest=digest,
        reference_digest=stored["reference"][0],
        format=kind,
        runtime="sklearn",
        size=size,
        key_column=fields.key,
        target_column=fields.target,
        trusted=fields.trust,
        created_by=caller().subject,
    )


def _format(filename: str, *, trusted: bool) -> str:
    kind = next((kind for ending, kind in _FORMATS.items() if filename.lower().endswith(ending)), None)
    if kind is None:
        detail = f"the artefact {filename!r} is of no known format; name it .skops, .joblib or .pkl"
        raise InvalidInput(detail, [Problem(detail, "#/artefact")])
    if kind in _RUNS_CODE and not trusted:
        detail = (
            "a joblib or pickle file runs code when it is loaded: set `trust` (--trust) if you trust whoever made it, "
            "or save the model with skops"
        )
        raise InvalidInput(detail, [Problem(detail, "#/trust")])
    return kind


def _version(model: str, version: str) -> Response:
    with transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, model)
        found = models.versions(connection, row.id, version)
        past = deployments.listing(connection, row.id)
    if not found:
        raise NotFound(f"model {model!r} has no version {version}")
    return jsonify(_version_document(model, found[0], past))


def _version_document(model: str, row: Any, past: Any) -> dict[str, Any]:
    return {
        "model": model,
        "version": row.version,
        "state": row.state,
        "digest": row.digest,
        "format": row.format,
        "runtime": row.runtime,
        "size": row.size,
        "signature": row.signature,
        "metrics": row.metrics,
        "lineage": row.lineage,
        "created_at": timestamp(row.created_at),
        "created_by": row.created_by,
        "error": row.error,
        "deployments": [deployment_document(model, found) for found in past if found.to_version_id == row.id],
    }
