"""The one place where a training puts a version into production."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from db import deployments


def promote(connection: Connection, tenant: str, model: str, version: str, *, why: str) -> UUID:
    """Deploy a challenger as a person would; returns the id of the deployment."""
    return deployments.deploy(connection, tenant, model, version, by="training", why=why)
