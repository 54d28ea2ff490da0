"""The synchronous shape: /predict and /predict/batch submit on the same pipeline and wait for the end."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api import schemas
from api.auth import caller, scope
from api.context import context
from api.jobs import job_response, read_json, submit_and_wait
from api.rendering import output_of, result_document
from db import jobs, models, predictions
from db.engine import transaction
from errors import Conflict, InvalidInput

blueprint = APIBlueprint("predict", __name__, abp_tags=[Tag(name="predict")])

_WAIT_SECONDS = 30.0
# The guide's name of the key in a flat record.
_CUSTOMER_ID = "customer_id"


@blueprint.post("/predict", responses={200: schemas.Prediction, 202: schemas.Job})
@scope("jobs:write")
def predict(query: schemas.PredictQuery, header: schemas.IdempotencyHeader, raw: schemas.RecordBody) -> Response:
    """Score one flat record and wait for it."""
    record = read_json(context().settings.max_json_bytes)
    if not isinstance(record, dict):
        raise InvalidInput("send one flat JSON object; for a list of records there is /predict/batch")
    job_id, over = _submit(query, record, header.idempotency_key, "predict")
    if not over:
        return job_response(job_id, status=202)
    answers = _answers(job_id)
    if "error" in answers[0]:
        raise InvalidInput(f"the record cannot be scored: {answers[0]['error']}")
    return jsonify(answers[0])


@blueprint.post("/predict/batch", responses={200: schemas.PredictionBatch, 202: schemas.Job})
@scope("jobs:write")
def predict_batch(
    query: schemas.PredictQuery, header: schemas.IdempotencyHeader, raw: schemas.RecordListBody
) -> Response:
    """Score a list of flat records and wait for them; a record that cannot be scored has an `error` in its place."""
    records = read_json(context().settings.max_json_bytes)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InvalidInput("send a JSON list of flat objects; for one record there is /predict")
    job_id, over = _submit(query, records, header.idempotency_key, "predict_batch")
    if not over:
        return job_response(job_id, status=202)
    answers = _answers(job_id)
    return jsonify({"predictions": answers, "batch_size": len(answers)})


def _submit(
    query: schemas.PredictQuery,
    inputs: dict[str, Any] | list[dict[str, Any]],
    idempotency_key: str | None,
    endpoint: str,
) -> tuple[UUID, bool]:
    """The job, and whether it is over."""
    with transaction(context().engine) as connection:
        name = query.model or context().settings.default_model or models.default_model(connection, caller().tenant)
        version = models.pinned(connection, caller().tenant, name, query.version)
        signature = context().signatures.of(connection, version.id)
    records = inputs if isinstance(inputs, list) else [inputs]
    key_column = None
    if (
        signature.key is None
        and _CUSTOMER_ID not in signature.names
        and any(_CUSTOMER_ID in record for record in records)
    ):
        key_column = _CUSTOMER_ID
    wanted = schemas.JobRequest(model=name, inputs=inputs, version=query.version, key_column=key_column)
    return submit_and_wait(wanted, idempotency_key, _WAIT_SECONDS, endpoint=endpoint)


def _answers(job_id: UUID) -> list[dict[str, Any]]:
    """One answer per record, in order."""
    with transaction(context().engine) as connection:
        row = jobs.get(connection, caller().tenant, job_id)
        scored = predictions.of_job(connection, job_id)
        errors = predictions.errors(connection, job_id, after_row=0, limit=row.rows_total)
        output = output_of(context(), connection, row)
    answers: dict[int, dict[str, Any]] = {}
    name = row.key_column if row.key_column == _CUSTOMER_ID else "key"
    for prediction in scored:
        document = result_document(row, prediction, output)
        answers[prediction.row] = {name: document.pop("key"), **document}
    for error in errors:
        answers[error.row] = {name: error.key, "error": f"{error.code}: {error.message}"}
    if len(answers) < row.rows_total:
        raise Conflict(f"job {job_id} was canceled before all of its records were scored")
    return [answers[place] for place in sorted(answers)]
