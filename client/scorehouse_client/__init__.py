"""Typed client of the Scorehouse HTTP API.

from scorehouse_client import Client

with Client("http://127.0.0.1:8000", token) as client:
    job = client.score_file("flights.csv", "flights", "scores.csv", key_column="flight_id")
"""

from __future__ import annotations

from scorehouse_client.client import Client
from scorehouse_client.errors import (
    AuditFailed,
    ConnectionFailed,
    DeploymentFailed,
    JobNotFinished,
    OutputFailed,
    RegistrationFailed,
    ScorehouseApiError,
    ScorehouseClientError,
    SourceFailed,
)
from scorehouse_client.resources import Deployment, Job, Model, ModelVersion, Rows

__all__ = [
    "AuditFailed",
    "Client",
    "ConnectionFailed",
    "Deployment",
    "DeploymentFailed",
    "Job",
    "JobNotFinished",
    "Model",
    "ModelVersion",
    "OutputFailed",
    "RegistrationFailed",
    "Rows",
    "ScorehouseApiError",
    "ScorehouseClientError",
    "SourceFailed",
]
