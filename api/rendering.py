"""Rows of the database as the documents of the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from api.context import Context
from db import jobs, predictions
from db.predictions import Prediction
from registry.signature import Output


def job_documents(context: Context, connection: Connection, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Jobs as `schemas.Job`."""
    singles = [row.id for row in rows if row.kind == "single" and row.state == "succeeded"]
    predicted = predictions.of_jobs(connection, singles) if singles else {}
    return [_job_document(context, connection, row, predicted.get(row.id)) for row in rows]


def _job_document(
    context: Context, connection: Connection, row: Row[Any], predicted: Sequence[Prediction] | None
) -> dict[str, Any]:
    done = row.rows_succeeded + row.rows_errored + row.rows_canceled
    over = row.state in jobs.TERMINAL
    rate = _rows_per_second(row)
    document = {
        "id": str(row.id),
        "kind": row.kind,
        "model": row.model,
        "model_version": row.model_version,
        "digest": row.digest,
        "lane": row.lane,
        "state": row.state,
        "rows": {
            "total": row.rows_total,
            "succeeded": row.rows_succeeded,
            "errored": row.rows_errored,
            "canceled": row.rows_canceled,
            "pending": row.rows_total - done,
        },
        "progress": 1.0 if over or row.rows_total == 0 else round(done / row.rows_total, 4),
        "rows_per_second": rate,
        "eta_seconds": 0 if over else round((row.rows_total - done) / rate, 1) if rate else None,
        "queue_position": jobs.queue_position(connection, row) if row.state == "queued" else None,
        "created_at": timestamp(row.created_at),
        "started_at": timestamp(row.started_at),
        "finished_at": timestamp(row.finished_at),
        "expires_at": timestamp(row.created_at + timedelta(days=context.settings.retention_days)),
        "inputs_removed_at": timestamp(row.inputs_removed_at),
        "as_of": timestamp(row.as_of),
        "metadata": row.metadata,
        "parent": None if row.parent_id is None else str(row.parent_id),
        "error": row.error,
        "links": _links(row.id),
    }
    if row.kind == "single":
        document["result"] = (
            result_document(row, predicted[0], output_of(context, connection, row)) if predicted else None
        )
        if row.state == "failed":
            document["error"] = _single_error(connection, row.id) or row.error
    return document


def result_document(row: Row[Any], prediction: Prediction, output: Output) -> dict[str, Any]:
    """One prediction as `schemas.SingleResult`."""
    probability = probabilities_of(prediction, output)
    return {
        "prediction_id": prediction_id(row.id, prediction.row),
        "key": prediction.record_key,
        "prediction": label(prediction.prediction, output),
        "probability": probability,
        "confidence": max(probability) if probability else None,
        "model_version": row.model_version,
        "timestamp": timestamp(prediction.scored_at),
    }


def prediction_id(job_id: UUID, row: int) -> str:
    """How a prediction is named to the outside."""
    return f"{job_id}:{row}"


def label(text: str, output: Output) -> Any:
    """A stored prediction in the type of the model's classes."""
    if output.kind == "regression" or output.class_type == "number":
        return float(text)
    if output.class_type == "integer":
        return int(text)
    if output.class_type == "boolean":
        return text == "true"
    return text


def timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def output_of(context: Context, connection: Connection, row: Row[Any]) -> Output:
    output = context.signatures.of(connection, row.version_id).output
    assert output is not None, "only a registered version, whose output was examined, can score"
    return output


def _single_error(connection: Connection, job_id: UUID) -> str | None:
    found = predictions.errors(connection, job_id, after_row=0, limit=1)
    return f"{found[0].code}: {found[0].message}" if found else None


def probabilities_of(prediction: Prediction, output: Output) -> list[float] | None:
    """One per class, in the order of the classes; None without."""
    if prediction.probabilities is not None:
        return prediction.probabilities
    if prediction.probability is None or output.classes is None:
        return None
    other = 1.0 - prediction.probability
    return [other, prediction.probability] if output.positive == output.classes[-1] else [prediction.probability, other]


def _rows_per_second(row: Row[Any]) -> float | None:
    done = row.rows_succeeded + row.rows_errored
    if row.started_at is None or done == 0:
        return None
    seconds: float = ((row.finished_at or row.now) - row.started_at).total_seconds()
    return round(float(done) / max(seconds, 0.001), 1)


def _links(job_id: UUID) -> dict[str, str]:
    base = f"/v1/jobs/{job_id}"
    return {
        "self": base,
        "results": f"{base}/results",
        "errors": f"{base}/errors",
        "events": f"{base}/events",
        "cancel": f"{base}/cancel",
        "retry": f"{base}/retry",
    }
