"""From findings to alerts: each observation is one step of its state machine, and people are told of what changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from db import alerts, audits, trainings
from db.engine import transaction
from monitoring.alerts import AlertState, Observation, step
from monitoring.notifications import notify
from settings import Settings

# A channel that failed is tried again after so long, and given up after a day.
_AGAIN_MINUTES = (1, 5, 30, 120, 360, 900)


def observe(connection: Connection, run: Any, observations: Sequence[Observation]) -> None:
    """Move the alerts of a version by what one audit saw, in the transaction that stores the audit."""
    known = alerts.of_version(connection, run.version_id)
    now: datetime = audits.now(connection)
    for observation in observations:
        row = known.get((observation.column, observation.check))
        before = AlertState() if row is None else AlertState.model_validate(row.machine)
        state, transition = step(before, observation, now)
        if row is None and state.state == "ok":
            continue  # all is well, as it always was
        alert_id = alerts.put(
            connection,
            model_id=run.model_id,
            version_id=run.version_id,
            column=observation.column,
            check=observation.check,
            machine=state.model_dump(mode="json"),
        )
        if transition is not None:
            event_id = alerts.record(
                connection,
                alert_id,
                origin=before.state,
                to=state.state,
                by="audit",
                document=transition.model_dump(mode="json"),
                run_id=run.id,
                quiet=not transition.notifies,
            )
            if transition.state == "firing" and transition.previous != "suppressed":
                trainings.request_for_alert(connection, run.model_id, event_id)


def deliver(engine: Engine, settings: Settings, seconds: float = 20.0) -> int:
    """Tell people of transitions that nobody was told of, and again on channels that failed; returns of how many.

    Delivery is outside the audit's transaction and may be repeated after a crash: it is told at least once. None is begun
    after `seconds`.
    """
    told, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with transaction(engine) as connection:
            event = alerts.take_due(connection)
            if event is None:
                break
            alert = alerts.described(connection, event.alert_id)
            document = {
                "alert": str(event.alert_id),
                "model": alert.model,
                "model_version": alert.model_version,
                "column": alert.column_name,
                "check": alert.check,
                **event.document,
            }
            before: list[dict[str, Any]] = event.deliveries or []
            failed = [delivery["channel"] for delivery in before if not delivery["ok"]]
            found = [asdict(delivery) for delivery in notify(settings, document, only=failed or None)]
            kept = [delivery for delivery in before if delivery["ok"]]
            alerts.delivered(connection, event, kept + found, again_in=_again_in(event.attempts, found))
            told += 1
    return told


def _again_in(attempts: int, deliveries: Sequence[dict[str, Any]]) -> timedelta | None:
    """How long to wait before the channels that failed are tried again; None when all went well, or no more is tried."""
    if all(delivery["ok"] for delivery in deliveries) or attempts >= len(_AGAIN_MINUTES):
        return None
    return timedelta(minutes=_AGAIN_MINUTES[attempts])
