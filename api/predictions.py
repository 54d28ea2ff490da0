"""The history of one record: which version scored it as what, from which inputs, and what came true."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from sqlalchemy import Connection

from api import schemas
from api.auth import caller, scope
from api.context import context
from api.rendering import label as label_of
from api.rendering import prediction_id, probabilities_of, timestamp
from db import jobs, labels, models, predictions
from db.engine import transaction
from db.predictions import Prediction
from records.boundaries import fields
from records.payload import unpack
from records.split import raw_records
from registry.signature import Signature

blueprint = APIBlueprint("predictions", __name__, url_prefix="/v1/predictions", abp_tags=[Tag(name="predictions")])

_MAX_CHUNK_BYTES = 1 << 30


@blueprint.get("", responses={200: schemas.History})
@scope("jobs:read")
def history(query: schemas.HistoryQuery) -> Response:
    """Why did this record get this score? Every prediction of a record key, with inputs, version and label."""
    with transaction(context().engine) as connection:
        model = models.get(connection, caller().tenant, query.model)
        versions = {version.id: version for version in models.versions(connection, model.id)}
        found = predictions.of_key(connection, list(versions), query.key, limit=query.limit)
        documents = [_document(connection, model.id, row, versions[row.version_id]) for row in found]
    return jsonify({"model": query.model, "key": query.key, "predictions": documents})


def _document(connection: Connection, model_id: int, row: Any, version: Any) -> dict[str, Any]:
    output = Signature.model_validate(version.signature).output
    assert output is not None, "only a registered version, whose output was examined, can score"
    job = jobs.by_id(connection, row.job_id)
    truth = labels.of_prediction(connection, model_id, row.job_id, row.row, row.record_key)
    scored = Prediction(row.row, row.record_key, row.prediction, row.probability, None, row.scored_at)
    return {
        "prediction_id": prediction_id(row.job_id, row.row),
        "job": str(row.job_id),
        "row": row.row,
        "key": row.record_key,
        "inputs": _inputs(connection, job, row.row),
        "prediction": label_of(row.prediction, output),
        "probability": probabilities_of(scored, output),
        "model_version": version.version,
        "scored_at": timestamp(row.scored_at),
        "as_of": None if job is None else timestamp(job.as_of),
        "label": None if truth is None else truth.label,
        "observed_at": None if truth is None else timestamp(truth.observed_at),
    }


def _inputs(connection: Connection, job: sa.Row[Any] | None, row: int) -> dict[str, Any] | None:
    """The record as it was sent: the cells of a CSV as text, the members of JSON as they were."""
    chunk = None if job is None else jobs.chunk_of_row(connection, job.id, row)
    if job is None or chunk is None:
        return None
    data = unpack(bytes(chunk.payload), _MAX_CHUNK_BYTES)
    record = raw_records(data, job.format, job.delimiter, [row - chunk.first_row])[0].raw
    if job.format == "csv":
        return dict(zip(job.columns, fields(record, job.delimiter), strict=False))
    found: dict[str, Any] = json.loads(record)
    return found
