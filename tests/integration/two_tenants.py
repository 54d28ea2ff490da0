"""A row in every table for each of two tenants, whose texts all carry the tenant's name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from db.ids import uuid7
from db.tables import metadata
from records.payload import pack

MINE, THEIRS = "north", "south"
# The installation's own: no row of them belongs to a tenant.
SYSTEM_TABLES = {"worker_heartbeat", "periodic_run", "event_total"}
# Where the first value that a type suggests is none that the table allows.
_ALLOWED = {
    "state": {"model_version": "registered", "deployment": "live", "job": "succeeded", "chunk": "done"},
    "kind": {"deployment": "deploy", "job": "batch", "audit_run": "drift"},
    "alias": {"model_alias": "production"},
    "lane": {"job": "bulk", "chunk": "bulk"},
    "format": {"job": "csv", "model_version": "skops"},
    "trigger_kind": {"training_run": "hand"},
}
_SIGNATURE = {"columns": [{"name": "x", "type": "number"}], "output": {"kind": "regression"}}


class Tenant:
    """The ids of one tenant's rows."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self.model = f"{name}-model"
        self.key = f"{name}-key"
        self._connection = connection
        self.ids: dict[str, Any] = {}
        self._by_type: dict[type, Callable[[str], Any]] = {
            ARRAY: lambda _: [],
            JSON: lambda _: {"told": name},
            sa.UUID: lambda _: uuid7(),
            sa.LargeBinary: lambda _: name.encode(),
            sa.Text: lambda column: f"{name} {column}",
            sa.Date: lambda _: date(2026, 1, 1),
            sa.TIMESTAMP: lambda _: datetime(2026, 1, 1, tzinfo=UTC),
            sa.Boolean: lambda _: False,
        }
        self._fill()

    def _fill(self) -> None:
        own = self._insert
        model = self.ids["model_id"] = own("model", name=self.model)
        version = self.ids["version_id"] = own(
            "model_version", model_id=model, version="1.0.0", signature=_SIGNATURE, digest=f"sha256:{self.name}"
        )
        of = {"model_id": model, "version_id": version}
        own("model_alias", **of)
        deployment = own("deployment", model_id=model, to_version_id=version)
        own("deployment_event", deployment_id=deployment)
        job = own(
            "job", version_id=version, columns=["x"], rows_total=1, rows_succeeded=1, finished_at=datetime.now(UTC)
        )
        assert isinstance(job, UUID)
        own(
            "chunk",
            job_id=job,
            version_id=version,
            first_row=1,
            rows=1,
            first_line=2,
            payload=pack(b"1\n"),
            lane="bulk",
        )
        own("prediction_block", job_id=job, first_row=1, version_id=version, record_keys=[self.key], predictions=["1"])
        own("row_error", job_id=job, row=2)
        own("label", model_id=model, record_key=self.key, job_id=None, row=None)
        for name in ("reference_profile", "chunk_profile", "profile_window", "scoring_total", "outcome_window"):
            own(name, version_id=version, **({"job_id": job} if name == "chunk_profile" else {}))
        for name in ("audit_policy", "training_policy"):
            own(name, model_id=model)
        audit = own("audit_run", **of)
        own("audit_result", run_id=audit)
        alert = own("alert", **of)
        own("alert_event", alert_id=alert)
        training = own("training_run", model_id=model)
        token = own("token", tenant=self.name, jti=str(uuid7()))
        own("audit_trail", tenant=self.name)
        for name in ("tenant_quota", "tenant_usage", "tenant_day", "tenant_upload", "tenant_rate"):
            own(name, **({"lease_until": datetime(2100, 1, 1, tzinfo=UTC)} if name == "tenant_upload" else {}))
        self.ids |= {"token": token}
        self.ids |= {"deployment": deployment, "job": job, "audit": audit, "alert": alert, "training": training}

    def _insert(self, table: str, **given: Any) -> Any:
        found = metadata.tables[table]
        values = {
            column.name: self._value(column)
            for column in found.columns
            if not column.nullable and column.server_default is None and column.identity is None
        }
        inserted = self._connection.execute(
            sa.insert(found).values(**{**values, **given}).returning(*found.primary_key.columns or [found.c[0]])
        ).one()
        return inserted[0]

    def _value(self, column: sa.Column[Any]) -> Any:
        if column.name == "tenant":
            return self.name
        if column.name in _ALLOWED and column.table.name in _ALLOWED[column.name]:
            return _ALLOWED[column.name][column.table.name]
        for kind, value in self._by_type.items():
            if isinstance(column.type, kind):
                return value(column.name)
        return 1
