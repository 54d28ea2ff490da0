"""Validation: the golden rows as a job through the real queue, pinned to the version, and compared with what is expected.

Warm-up has shown that each worker has the model. This shows that a job of it goes all the way: claimed, scored in its
lane, finished, and read back. The job belongs to nobody: no keys, no statistics, not in the list of jobs.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection

from db import chunks, jobs, predictions
from db.ids import uuid7
from db.jobs import NewJob
from db.models import Version
from db.predictions import Prediction
from db.profiles import VALIDATION
from errors import DeploymentRefused
from records.piece import Piece
from registry.compiled.record import Compiled
from registry.golden import Golden, beyond, first_difference
from registry.scores import SINGLE_TOLERANCE, Runtime
from registry.scoring import Scored
from registry.signature import Output, Signature


def submit(connection: Connection, version: Version, deployment_id: UUID) -> dict[str, Any]:
    """Store the job; returns what is kept of it in `checks`."""
    golden = _golden(version)
    if not golden:
        return {"job": None, "rows": 0, "note": "the version has no golden rows: nothing was validated"}
    signature = Signature.model_validate(version.signature)
    new = NewJob(
        id=uuid7(),
        tenant=version.tenant,
        version_id=version.id,
        kind="batch",
        lane="interactive",
        format="csv",
        columns=signature.names,
        created_by=f"deployment {deployment_id}",
        priority="high",
        endpoint=VALIDATION,
        counted=False,
    )
    data = "".join(f"{row.inputs}\n" for row in golden).encode()
    chunks.submit(connection, new.tenant, [(new, [Piece(1, len(golden), 1, data)])])
    return {"job": str(new.id), "rows": len(golden)}


def judge(connection: Connection, version: Version, job_id: UUID) -> bool:
    """Whether the job is over, and as expected.

    Raises:
        DeploymentRefused: a row errored or differs; says which, and by how much. Or the job is gone, or was canceled.
    """
    job = jobs.by_id(connection, job_id)
    if job is None:
        raise DeploymentRefused([f"the validation job {job_id} is gone; deploy again"])
    if job.state not in jobs.TERMINAL:
        return False
    golden = _golden(version)
    errors = predictions.errors(connection, job_id, after_row=0, limit=1)
    if errors:
        row = errors[0]
        raise DeploymentRefused([f"golden row {row.row} ({golden[row.row - 1].inputs}) errored: {row.message}"])
    if job.state != "succeeded":
        raise DeploymentRefused([f"the validation job {job_id} is {job.state}; deploy again"])
    output = Signature.model_validate(version.signature).output
    assert output is not None, "a version that has golden rows was examined"
    # Each worker has checked the golden rows more closely when it loaded the model.
    tolerance = SINGLE_TOLERANCE if version.runtime == "onnx" else Runtime.tolerance
    scored = _scored(predictions.of_job(connection, job_id), output)
    quantised = Compiled.model_validate(version.compiled or {"wanted": "sklearn"}).quantised
    if quantised is not None and quantised.lanes:
        told = beyond(scored, golden, quantised.golden_deviation)
        if told is not None:
            raise DeploymentRefused([f"{told}, scored by the queue"])
        return True
    difference = _difference(scored, golden, tolerance)
    if difference is not None:
        place, told = difference
        raise DeploymentRefused([f"golden row {place + 1} ({golden[place].inputs}) {told}, scored by the queue"])
    return True


def _golden(version: Version) -> list[Golden]:
    return [Golden.model_validate(row) for row in version.golden or []]


def _scored(found: list[Prediction], output: Output) -> Scored:
    """Predictions as they were before they were stored."""
    labels = np.array([_label(row.prediction, output) for row in found])
    probabilities = [_probabilities(row, output) for row in found if output.has_probability]
    return Scored(
        np.array([row.row for row in found]), None, labels, np.array(probabilities) if probabilities else None, []
    )


def _difference(scored: Scored, golden: list[Golden], tolerance: float) -> tuple[int, str] | None:
    """The first row that is not as expected, and how."""
    expected = [row.probabilities for row in golden if row.probabilities is not None]
    return first_difference(
        scored, np.array([row.prediction for row in golden]), np.array(expected) if expected else None, tolerance
    )


def _label(text: str, output: Output) -> Any:
    """A stored prediction in the type of the golden rows."""
    if output.kind == "regression" or output.class_type == "number":
        return float(text)
    if output.class_type == "integer":
        return int(text)
    return text == "true" if output.class_type == "boolean" else text


def _probabilities(row: Prediction, output: Output) -> list[float]:
    """One per class."""
    if row.probabilities is not None:
        return row.probabilities
    assert row.probability is not None
    assert output.classes is not None
    rest = 1.0 - row.probability
    return [row.probability if label == output.positive else rest for label in output.classes]
