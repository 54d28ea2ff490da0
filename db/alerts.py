"""Alerts: what the state machine remembers of each (version, column, check), and every transition it made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db.ids import uuid7
from db.tables import alert, alert_event, model, model_version
from errors import NotFound

_TELLING = 0xA1E27  # of the transitions of an alert
_LOOKED_AT = 100

OPEN = ("pending", "firing", "acknowledged", "suppressed")


def sweep(connection: Connection, *, days: int) -> None:
    """Forget transitions of so long ago, of which everybody was told who is to be; what an alert is stays."""
    told = alert_event.c.deliveries.is_not(None) & alert_event.c.next_attempt_at.is_(None)
    past = alert_event.c.at < sa.func.now() - sa.func.make_interval(0, 0, 0, days)
    connection.execute(sa.delete(alert_event).where(past, told))


def of_version(connection: Connection, version_id: int) -> dict[tuple[str, str], sa.Row[Any]]:
    """The alerts of a version by (column, check), locked: audits of one version take turns.

    The lock is the version's own, since an alert that is not there yet cannot be locked; a person who acknowledges one takes
    that of the alert.
    """
    connection.execute(
        sa.select(model_version.c.id).where(model_version.c.id == version_id).with_for_update(key_share=True)
    )
    rows = connection.execute(
        sa.select(alert).where(alert.c.version_id == version_id).order_by(alert.c.id).with_for_update()
    ).all()
    return {(row.column_name, row.check): row for row in rows}


def put(
    connection: Connection, *, model_id: int, version_id: int, column: str, check: str, machine: dict[str, Any]
) -> UUID:
    """Store a state; `machine` has at least `state`, `severity` and `value`."""
    values = {"state": machine["state"], "severity": machine["severity"], "value": machine["value"], "machine": machine}
    alert_id: UUID = connection.execute(
        insert(alert)
        .values(id=uuid7(), model_id=model_id, version_id=version_id, column_name=column, check=check, **values)
        .on_conflict_do_update(
            index_elements=[alert.c.version_id, alert.c.column_name, alert.c.check],
            set_={
                **values,
                "changed_at": sa.case((alert.c.state == machine["state"], alert.c.changed_at), else_=sa.func.now()),
            },
        )
        .returning(alert.c.id)
    ).scalar_one()
    return alert_id


def record(
    connection: Connection,
    alert_id: UUID,
    *,
    origin: str,
    to: str,
    by: str,
    document: dict[str, Any],
    run_id: UUID | None = None,
    quiet: bool = False,
) -> int:
    """Keep a transition, and return its id; unless it is quiet, somebody is to be told of it."""
    event_id: int = connection.execute(
        sa.insert(alert_event)
        .values(
            alert_id=alert_id,
            from_state=origin,
            to_state=to,
            by=by,
            run_id=run_id,
            document=document,
            deliveries=[] if quiet else None,
        )
        .returning(alert_event.c.id)
    ).scalar_one()
    return event_id


def take_due(connection: Connection) -> sa.Row[Any] | None:
    """The oldest transition that somebody is to be told of now, kept from others until the transaction ends.

    Those of one alert are told one after the other, so that nobody hears that it has resolved before that it fired.
    """
    due = sa.or_(alert_event.c.deliveries.is_(None), alert_event.c.next_attempt_at <= sa.func.now())
    first = sa.select(alert_event.c.id, alert_event.c.alert_id).where(due).order_by(alert_event.c.id).limit(_LOOKED_AT)
    for candidate in connection.execute(first).all():
        # Not the row of the alert: audits would wait for it as long as a webhook takes to answer.
        place = sa.func.hashtext(str(candidate.alert_id))
        if connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_TELLING, place))).scalar_one():
            row = connection.execute(
                sa.select(alert_event).where(alert_event.c.id == candidate.id, due).with_for_update()
            ).one_or_none()
            if row is not None:  # it was not told while we waited for nothing
                return row
    return None


def delivered(
    connection: Connection, event: Any, deliveries: Sequence[dict[str, Any]], *, again_in: timedelta | None
) -> None:
    """Keep how telling of a transition went; it is tried again if that is said. Earlier ones of its alert no longer are."""
    table = alert_event.c
    connection.execute(
        sa.update(alert_event)
        .where(table.id == event.id)
        .values(
            deliveries=list(deliveries),
            attempts=table.attempts + 1,
            next_attempt_at=None if again_in is None else sa.func.now() + again_in,
        )
    )
    connection.execute(
        sa.update(alert_event)
        .where(table.alert_id == event.alert_id, table.id < event.id, table.next_attempt_at.is_not(None))
        .values(next_attempt_at=None)
    )


def page(
    connection: Connection, tenant: str, *, model_name: str | None, states: Sequence[str] | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Alerts of a tenant, the last changed first; by default those that are open."""
    query = _alerts().where(model.c.tenant == tenant, alert.c.state.in_(states or OPEN))
    if model_name is not None:
        query = query.where(model.c.name == model_name)
    return connection.execute(query.order_by(alert.c.changed_at.desc(), alert.c.id).limit(limit)).all()


def get(connection: Connection, tenant: str, alert_id: UUID, *, lock: bool = False) -> sa.Row[Any]:
    """Raises NotFound."""
    query = _alerts().where(alert.c.id == alert_id, model.c.tenant == tenant)
    row = connection.execute(query.with_for_update(of=alert) if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no alert {alert_id}")
    return row


def described(connection: Connection, alert_id: UUID) -> sa.Row[Any]:
    """An alert of any tenant, with the names of its model and version."""
    return connection.execute(_alerts().where(alert.c.id == alert_id)).one()


def events(connection: Connection, alert_id: UUID, limit: int = 200) -> Sequence[sa.Row[Any]]:
    """The transitions of an alert, newest first."""
    return connection.execute(
        sa.select(alert_event).where(alert_event.c.alert_id == alert_id).order_by(alert_event.c.id.desc()).limit(limit)
    ).all()


def counts(connection: Connection) -> Sequence[sa.Row[Any]]:
    """model, state, severity, number: for gauges."""
    return connection.execute(
        sa.select(model.c.name.label("model"), alert.c.state, alert.c.severity, sa.func.count().label("number"))
        .join(model, model.c.id == alert.c.model_id)
        .where(alert.c.state.in_(OPEN))
        .group_by(model.c.name, alert.c.state, alert.c.severity)
    ).all()


def _alerts() -> sa.Select[Any]:
    return (
        sa.select(alert, model.c.name.label("model"), model_version.c.version.label("model_version"))
        .join(model, model.c.id == alert.c.model_id)
        .join(model_version, model_version.c.id == alert.c.version_id)
    )
