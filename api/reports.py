"""The report of an audit: its document, those of earlier windows, and the distributions behind it, as one page."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from db import audits, profiles
from db.engine import transaction
from errors import Conflict
from monitoring.distributions import distributions
from monitoring.profile import Profile, empty, from_bytes, merge
from monitoring.report import accuracy_report, drift_report
from monitoring.schema import ProfileSchema

_WINDOWS = 100  # of the history: more points than this run into each other


def page(engine: Engine, tenant: str, audit_id: UUID) -> str:
    """An audit as HTML.

    Raises:
        NotFound: the tenant has no such audit.
        Conflict: it is not done.
    """
    with transaction(engine) as connection:
        run = audits.by_id(connection, tenant, audit_id)
        _require_done(run)
        history = _history(connection, run)
        stored = _profiles(connection, run) if run.kind == "drift" else None
    if run.kind == "accuracy":
        return accuracy_report(run.document, history)
    if stored is None:
        return drift_report(run.document, history, {})
    reference, current = stored
    if current.rows != run.document["rows"]:
        return drift_report(run.document, history, {}, _changed(run.document["rows"], current.rows))
    return drift_report(run.document, history, distributions(reference, current))


def _require_done(run: Any) -> None:
    if run.state == "failed":
        raise Conflict(f"the audit failed, so it has no report: {run.error}; mend that and ask for the audit again")
    if run.state != "done":
        raise Conflict(
            f"the audit is {run.state}; its report is here once it is done: poll /v1/audits/{run.id}", retry_after=1
        )


def _history(connection: Connection, run: Any) -> list[dict[str, Any]]:
    """Audits of windows of the same length up to this one. Of one window the last counts: of this version, and the newest."""
    found = audits.latest(
        connection,
        run.model_id,
        run.kind,
        window=run.window_end - run.window_start,
        until=run.window_end,
        limit=_WINDOWS,
    )
    found = sorted(found, key=lambda each: (each.version_id == run.version_id, each.finished_at))
    return [each.document for each in found]


def _profiles(connection: Connection, run: Any) -> tuple[Profile, Profile] | None:
    """The reference's and the window's; the document tells the window, which may reach further back than was asked."""
    reference = profiles.reference(connection, run.version_id)
    if reference is None:
        return None
    start, end = (datetime.fromisoformat(run.document["window"][name]) for name in ("start", "end"))
    schema = ProfileSchema.model_validate(reference.schema)
    found = profiles.between(connection, run.version_id, reference.schema_digest, start, end)
    current = merge([empty(schema), *(from_bytes(schema, item) for item in found)])
    return from_bytes(schema, reference.profile), current


def _changed(audited: int, stored: int) -> str:
    """Rows came after the audit, or retention or the roll-up into days took the window's hours."""
    return (
        f"The audit saw {audited:,} rows; {stored:,} are stored for its window by now. "
        "So its distributions are not drawn: audit the window again to see them."
    )
