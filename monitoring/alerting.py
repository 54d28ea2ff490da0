"""From findings to alerts: each observation is one step of its state machine, and people are told of what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from db import alerts, audits, trainings
from db.engine import transaction
from monitoring.alerts import AlertState, Observation, step
from monitoring.notifications import notify
from settings import Settings


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


def deliver(engine: Engine, settings: Settings) -> int:
    """Tell people of transitions that nobody was told of; returns of how many.

    Delivery is outside the audit's transaction and may be repeated after a crash: it is told at least once.
    """
    told = 0
    while True:
        with transaction(engine) as connection:
            events = alerts.undelivered(connection, limit=1)
            if not events:
                return told
            event = events[0]
            alert = alerts.described(connection, event.alert_id)
            document = {
                "alert": str(event.alert_id),
                "model": alert.model,
                "model_version": alert.model_version,
                "column": alert.column_name,
                "check": alert.check,
                **event.document,
            }
            deliveries = notify(settings, document)
            alerts.delivered(connection, event.id, [asdict(delivery) for delivery in deliveries])
            told += 1
