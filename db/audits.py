"""Audits: asked for by beat or by a person, claimed and run by one worker each, kept with their results.

`audit_run` is a queue like `chunk`: Postgres says what is due, a permit only wakes a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db import labels
from db.ids import uuid7
from db.tables import audit_policy, audit_result, audit_run, model, model_alias, model_version
from errors import NotFound

KINDS = ("drift", "accuracy", "domain")

_ATTEMPTS = 3
_LEASE_SECONDS = 300
_LOCK = 0xA0D17  # one beat at a time asks for audits

_AGAIN: dict[str, Any] = {"state": "queued", "attempts": 0, "lease_until": None, "error": None}


@dataclass(frozen=True, slots=True)
class Policy:
    """How a model is audited; the defaults hold for a model that says nothing."""

    every_hours: int = 1
    window_hours: int = 24
    enabled: bool = True
    tolerance: float = 0.05
    horizon_days: int | None = None
    negative_label: str | None = None

    @property
    def configuration(self) -> str:
        """What of it changes a result."""
        return f"tolerance={self.tolerance:g} horizon={self.horizon_days} negative={self.negative_label}"


@dataclass(frozen=True, slots=True)
class Request:
    """An audit to run: of a version, over the time from `start` up to `end`."""

    kind: str
    model_id: int
    version_id: int
    start: datetime
    end: datetime
    configuration: str
    alerting: bool


def policy(connection: Connection, model_id: int) -> Policy:
    row = connection.execute(sa.select(audit_policy).where(audit_policy.c.model_id == model_id)).one_or_none()
    return Policy() if row is None else _policy(row)


def set_policy(connection: Connection, model_id: int, wanted: Policy) -> None:
    connection.execute(sa.select(model.c.id).where(model.c.id == model_id).with_for_update(key_share=True))
    earlier = policy(connection, model_id)
    values = {
        "every_hours": wanted.every_hours,
        "window_hours": wanted.window_hours,
        "enabled": wanted.enabled,
        "tolerance": wanted.tolerance,
        "horizon_days": wanted.horizon_days,
        "negative_label": wanted.negative_label,
    }
    connection.execute(
        insert(audit_policy)
        .values(model_id=model_id, **values)
        .on_conflict_do_update(
            index_elements=[audit_policy.c.model_id],
            set_=values | ({"enabled_since": sa.func.now()} if wanted.enabled and not earlier.enabled else {}),
        )
    )
    if (earlier.horizon_days, earlier.negative_label) != (wanted.horizon_days, wanted.negative_label):
        labels.mark_all_dirty(connection, model_id)


def request(connection: Connection, wanted: Request) -> UUID:
    """Ask for an audit now; the same window and configuration is the same run, done anew.

    A run of the schedule still moves alerts, whoever asks for it again.
    """
    run_id: UUID = connection.execute(
        insert(audit_run)
        .values(
            id=uuid7(),
            kind=wanted.kind,
            model_id=wanted.model_id,
            version_id=wanted.version_id,
            window_start=wanted.start,
            window_end=wanted.end,
            configuration=wanted.configuration,
            alerting=wanted.alerting,
        )
        .on_conflict_do_update(
            constraint="audit_run_once_key",
            set_=_AGAIN | {"alerting": audit_run.c.alerting | sa.literal(wanted.alerting)},
        )
        .returning(audit_run.c.id)
    ).scalar_one()
    return run_id


def request_due(connection: Connection, *, catch_up_hours: int) -> int:
    """Ask for every scheduled audit whose hour has come, those that an outage left out included; returns how many.

    A slot is an hour of the database's clock that the model's interval divides; its windows end there. Slots are asked for
    in order, so those after the last one are missing: a changed policy never audits again what was audited by an earlier
    one. Nor is asked for what went by while a policy was disabled.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    now: datetime = connection.execute(sa.select(sa.func.date_trunc("hour", sa.func.clock_timestamp()))).scalar_one()
    first = now - timedelta(hours=catch_up_hours - 1)
    missing = [
        {
            "id": uuid7(),
            "kind": row.kind,
            "model_id": row.model_id,
            "version_id": row.version_id,
            "window_start": slot - timedelta(hours=row.window_hours),
            "window_end": slot,
            "configuration": _policy(row).configuration,
            "alerting": True,
            "scheduled": True,
        }
        for row in _scheduled(connection)
        if row.enabled
        for slot in _slots(row, first, now)
    ]
    if not missing:
        return 0
    # A person may have looked at just this window before, and told the alerts nothing.
    anew = insert(audit_run).on_conflict_do_update(
        constraint="audit_run_once_key",
        set_=_AGAIN | {"alerting": True, "scheduled": True},
        where=~audit_run.c.scheduled,
    )
    connection.execute(anew, missing)
    return len(missing)


def claim(connection: Connection) -> sa.Row[Any] | None:
    """Take an audit that is due; a worker that dies with it leaves it to another after a while."""
    due = sa.select(audit_run.c.id).where(_is_due()).order_by(audit_run.c.id).limit(1).with_for_update(skip_locked=True)
    taken = (
        sa.update(audit_run)
        .where(audit_run.c.id == due.scalar_subquery())
        .values(
            state="running",
            attempts=audit_run.c.attempts + 1,
            lease_until=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, _LEASE_SECONDS),
        )
        .returning(audit_run)
    )
    while (row := connection.execute(taken).one_or_none()) is not None:
        if row.attempts <= _ATTEMPTS:
            return row
        fail(connection, row, f"the audit ended its worker {_ATTEMPTS} times")
    return None


def due(connection: Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(audit_run).where(_is_due())).scalar_one()


def complete(
    connection: Connection, run: sa.Row[Any], *, document: dict[str, Any], results: Sequence[dict[str, Any]]
) -> bool:
    """Store what an audit found; False when another worker did so in the meantime."""
    done = connection.execute(
        sa.update(audit_run)
        .where(_still_mine(run))
        .values(
            state="done",
            status=document["status"],
            rows=document.get("rows", document.get("scored")),
            document=document,
            error=None,
            lease_until=None,
            finished_at=sa.func.now(),
        )
    )
    if done.rowcount == 0:
        return False
    connection.execute(sa.delete(audit_result).where(audit_result.c.run_id == run.id))
    if results:
        columns = ("name", "statistic", "value", "warn", "critical", "p_value", "significant", "status")
        connection.execute(
            sa.insert(audit_result),
            [{"run_id": run.id, **{name: result.get(name) for name in columns}} for result in results],
        )
    return True


def fail(connection: Connection, run: sa.Row[Any], error: str) -> bool:
    """End an audit with a reason; False when another worker has it by now."""
    failed = connection.execute(
        sa.update(audit_run)
        .where(_still_mine(run))
        .values(state="failed", error=error, lease_until=None, finished_at=sa.func.now())
    )
    return failed.rowcount > 0


def by_id(connection: Connection, tenant: str, run_id: UUID) -> sa.Row[Any]:
    """Raises NotFound."""
    row = connection.execute(_runs().where(audit_run.c.id == run_id, model.c.tenant == tenant)).one_or_none()
    if row is None:
        raise NotFound(f"there is no audit {run_id}")
    return row


def latest(
    connection: Connection,
    model_id: int,
    kind: str,
    *,
    window: timedelta | None = None,
    until: datetime | None = None,
    limit: int = 1,
) -> Sequence[sa.Row[Any]]:
    """The last audits of a kind that are done, newest first; of windows of one length, and that end by a time, if given."""
    query = _runs().where(audit_run.c.model_id == model_id, audit_run.c.kind == kind, audit_run.c.state == "done")
    if window is not None:
        query = query.where(audit_run.c.window_end - audit_run.c.window_start == window)
    if until is not None:
        query = query.where(audit_run.c.window_end <= until)
    return connection.execute(
        query.order_by(audit_run.c.window_end.desc(), audit_run.c.finished_at.desc()).limit(limit)
    ).all()


def latest_of_production(connection: Connection, kind: str) -> Sequence[sa.Row[Any]]:
    """The last audit of a kind of each version in production, for gauges."""
    newest = (
        sa.select(audit_run.c.id)
        .where(
            audit_run.c.model_id == model_alias.c.model_id,
            audit_run.c.version_id == model_alias.c.version_id,
            audit_run.c.kind == kind,
            audit_run.c.state == "done",
        )
        .order_by(audit_run.c.window_end.desc(), audit_run.c.finished_at.desc())
        .limit(1)
    )
    in_production = sa.select(newest.scalar_subquery()).where(model_alias.c.alias == "production")
    return connection.execute(_runs().where(audit_run.c.id.in_(in_production))).all()


def last_success(connection: Connection) -> dict[str, datetime]:
    rows = connection.execute(
        sa.select(audit_run.c.kind, sa.func.max(audit_run.c.finished_at).label("at"))
        .where(audit_run.c.state == "done")
        .group_by(audit_run.c.kind)
    ).all()
    return {row.kind: row.at for row in rows}


def now(connection: Connection) -> datetime:
    """By the database's clock, in UTC."""
    moment: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()
    return moment


def sweep(connection: Connection, days: int) -> None:
    """Forget audits older than `days`."""
    connection.execute(
        sa.delete(audit_run).where(audit_run.c.created_at < sa.func.now() - sa.func.make_interval(0, 0, 0, days))
    )


def _scheduled(connection: Connection) -> Sequence[Any]:
    """Each production version with its policy, by kind of audit, and the last slot that was asked for."""
    kinds = sa.values(sa.column("kind", sa.Text), name="kinds").data([(kind,) for kind in KINDS])
    last = (
        sa.select(sa.func.max(audit_run.c.window_end))
        .where(
            audit_run.c.model_id == model_alias.c.model_id,
            audit_run.c.kind == kinds.c.kind,
            audit_run.c.version_id == model_alias.c.version_id,
            audit_run.c.scheduled,
        )
        .scalar_subquery()
    )
    default = Policy()
    columns = (
        sa.func.coalesce(audit_policy.c[name], getattr(default, name)).label(name)
        for name in ("every_hours", "window_hours", "enabled", "tolerance")
    )
    return connection.execute(
        sa.select(
            model_alias.c.model_id,
            model_alias.c.version_id,
            model_alias.c.changed_at,
            kinds.c.kind,
            last.label("last"),
            *columns,
            audit_policy.c.horizon_days,
            audit_policy.c.negative_label,
            audit_policy.c.enabled_since,
        )
        .join_from(model_alias, kinds, sa.true())
        .outerjoin(audit_policy, audit_policy.c.model_id == model_alias.c.model_id)
        .where(model_alias.c.alias == "production")
    ).all()


def _slots(row: Any, first: datetime, now: datetime) -> Iterator[datetime]:
    """The hours up to `now` at which an audit was due and not asked for, since the version is in production and audited."""
    slot = first if row.last is None else max(first, row.last + timedelta(microseconds=1))
    slot = max(slot, row.changed_at, row.enabled_since or slot)
    slot = slot.replace(minute=0, second=0, microsecond=0) + timedelta(
        hours=bool(slot.minute or slot.second or slot.microsecond)
    )
    while slot <= now:
        divides = int(slot.timestamp()) // 3600 % row.every_hours == 0
        # The domain audit fits a model, which is dear: it has the first slot of each day.
        if divides and (row.kind != "domain" or slot.hour < row.every_hours):
            yield slot
        slot += timedelta(hours=1)


def _policy(row: Any) -> Policy:
    return Policy(row.every_hours, row.window_hours, row.enabled, row.tolerance, row.horizon_days, row.negative_label)


def _still_mine(run: sa.Row[Any]) -> sa.ColumnElement[bool]:
    """Fenced by the lease, of which no two claims have the same: attempts begin again when the audit is asked for again."""
    return sa.and_(audit_run.c.id == run.id, audit_run.c.state == "running", audit_run.c.lease_until == run.lease_until)


def _is_due() -> sa.ColumnElement[bool]:
    return sa.or_(
        audit_run.c.state == "queued",
        sa.and_(audit_run.c.state == "running", audit_run.c.lease_until < sa.func.now()),
    )


def _runs() -> sa.Select[Any]:
    return (
        sa.select(
            audit_run, model.c.name.label("model"), model.c.tenant, model_version.c.version.label("model_version")
        )
        .join(model_version, model_version.c.id == audit_run.c.version_id)
        .join(model, model.c.id == audit_run.c.model_id)
    )
