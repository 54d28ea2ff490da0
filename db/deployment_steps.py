"""A deployment on its way: claimed by a worker for the time of a lease, taken a step further, and switched to or failed.

    claim     free, its lease over, or its owner dead: lease, attempts + 1
    record    what a step has found, a new state; renews the lease, and is fenced by it
    release   the permit's time is over: attempts 0, anybody may go on
    go_live   one transaction: lock the model, check that it is still open, move the aliases and the slot, end it
    fail      with the reasons; production stays as it is

Each step can be taken again by another worker. Nothing but `go_live` touches production.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from db import deployments, models, slots
from db.models import Version
from db.slots import OPEN
from db.tables import deployment, worker_heartbeat
from errors import Fenced


@dataclass(frozen=True, slots=True)
class Open:
    """A deployment in this worker's hands, until its lease is over.

    Attributes:
        checks: what its steps have found so far, by step.
        silent: seconds since it last moved, when it was read.
    """

    id: UUID
    model_id: int
    version: Version
    state: str
    gate: dict[str, Any] | None
    checks: dict[str, Any]
    attempts: int
    lease_until: datetime
    silent: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What worker children are to hold, the most important first; `deploying` by deployment."""

    production: list[Version]
    deploying: dict[UUID, Version]
    previous: list[Version]


def wanted(connection: Connection) -> Wanted:
    rows = connection.execute(
        sa.select(deployment.c.id, deployment.c.to_version_id)
        .where(deployment.c.state.in_(OPEN))
        .order_by(deployment.c.id)
    ).all()
    return Wanted(
        models.in_production(connection),
        {row.id: models.by_id(connection, row.to_version_id) for row in rows},
        models.with_alias(connection, "previous"),
    )


def under_way(connection: Connection) -> set[UUID]:
    return set(connection.execute(sa.select(deployment.c.id).where(deployment.c.state.in_(OPEN))).scalars())


def due(connection: Connection) -> int:
    """How many wait for a worker."""
    return connection.execute(
        sa.select(sa.func.count()).select_from(deployment).where(deployment.c.state.in_(OPEN), _free())
    ).scalar_one()


def claim(connection: Connection, *, owner: str, lease_seconds: float) -> Open | None:
    """Take the oldest one that is free, or that this very worker lost sight of."""
    oldest = (
        sa.select(deployment.c.id)
        .where(deployment.c.state.in_(OPEN), sa.or_(_free(), deployment.c.owner == owner))
        .order_by(deployment.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(
        sa.update(deployment)
        .where(deployment.c.id == oldest.scalar_subquery())
        .values(owner=owner, lease_until=_in_seconds(lease_seconds), attempts=deployment.c.attempts + 1)
        .returning(*_COLUMNS)
    ).one_or_none()
    return None if row is None else _open(row, models.by_id(connection, row.to_version_id))


def record(
    connection: Connection,
    open_: Open,
    *,
    lease_seconds: float,
    state: str | None = None,
    checks: dict[str, Any] | None = None,
    message: str | None = None,
    moved: bool = True,
    by: str,
) -> Open:
    """Keep what a step has found.

    Args:
        checks: by step; those of other steps stay.
        moved: whether that is an advance, after which it may stand still for the whole time again.
        message: for the history; None: this is no event.

    Raises:
        Fenced: it was taken away, canceled or superseded.
    """
    values = {
        "state": state or open_.state,
        "checks": {**open_.checks, **(checks or {})},
        "lease_until": _in_seconds(lease_seconds),
    }
    if moved:
        values["moved_at"] = sa.func.now()
    row = connection.execute(
        sa.update(deployment).where(_mine(open_)).values(**values).returning(*_COLUMNS)
    ).one_or_none()
    if row is None:
        raise _fenced(open_)
    if message is not None:
        deployments.note(connection, open_.id, row.state, message, by)
    return _open(row, open_.version)


def release(connection: Connection, open_: Open) -> None:
    """Let others go on; no harm if it is over, or somebody else's."""
    connection.execute(sa.update(deployment).where(_mine(open_)).values(owner=None, lease_until=None, attempts=0))


def silent(connection: Connection, open_: Open) -> float:
    """Seconds since it last moved.

    Raises:
        Fenced: it was taken away, canceled or superseded.
    """
    seconds = connection.execute(sa.select(_SILENT).where(_mine(open_))).scalar_one_or_none()
    if seconds is None:
        raise _fenced(open_)
    return float(seconds)


def go_live(connection: Connection, open_: Open, *, by: str) -> None:
    """The switch. Jobs that are in flight keep the version that they were pinned to.

    Raises:
        Fenced: it was taken away, canceled or superseded; production is as it was.
    """
    slots.lock(connection, open_.model_id)
    current = slots.aliases(connection, open_.model_id)
    production = current.get("production")
    row = connection.execute(
        sa.update(deployment)
        .where(_mine(open_))
        .values(
            state="live",
            from_version_id=production,
            lease_until=None,
            owner=None,
            finished_at=sa.func.clock_timestamp(),
        )
        .returning(deployment.c.id)
    ).one_or_none()
    if row is None:
        raise _fenced(open_)
    previous = current.get("previous") if production == open_.version.id else production
    slot = slots.put_into_production(connection, open_.model_id, open_.version.id, previous=previous)
    deployments.note(connection, open_.id, "live", f"{open_.version.version} is live in the {slot} slot", by)


def fail(connection: Connection, open_: Open, reasons: list[str], *, by: str) -> bool:
    """False when it was not ours to fail any more."""
    return deployments.end(connection, _mine(open_), reasons, by)


_SILENT = sa.func.extract("epoch", sa.func.clock_timestamp() - deployment.c.moved_at).label("silent")
_COLUMNS = (
    deployment.c.id,
    deployment.c.model_id,
    deployment.c.to_version_id,
    deployment.c.state,
    deployment.c.gate,
    deployment.c.checks,
    deployment.c.attempts,
    deployment.c.lease_until,
    _SILENT,
)


def _open(row: sa.Row[Any], version: Version) -> Open:
    return Open(
        id=row.id,
        model_id=row.model_id,
        version=version,
        state=row.state,
        gate=row.gate,
        checks=row.checks,
        attempts=row.attempts,
        lease_until=row.lease_until,
        silent=float(row.silent),
    )


def _mine(open_: Open) -> sa.ColumnElement[bool]:
    """Fenced by the lease: no two claims have the same."""
    return sa.and_(
        deployment.c.id == open_.id, deployment.c.state.in_(OPEN), deployment.c.lease_until == open_.lease_until
    )


def _free() -> sa.ColumnElement[bool]:
    """A child that is dead is removed from the heartbeats by its neighbours, sooner than its lease is over."""
    lives = sa.exists().where(worker_heartbeat.c.owner == deployment.c.owner)
    return sa.or_(deployment.c.lease_until.is_(None), deployment.c.lease_until < sa.func.now(), sa.not_(lives))


def _fenced(open_: Open) -> Fenced:
    return Fenced(f"deployment {open_.id} is in other hands, or over")


def _in_seconds(seconds: float) -> sa.ColumnElement[Any]:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
