"""Retention: jobs and labels past their age go, with inputs and results; predictions go by dropping whole partitions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from db import usage
from db.ids import lower_bound
from db.jobs import TERMINAL
from db.tables import job, label

_DAY = "prediction_block_%Y%m%d"


def sweep(connection: Connection, *, days: int, now: datetime | None = None) -> int:
    """Remove terminal jobs of days that ended more than `days` ago; returns how many.

    A day with a job that is still open keeps its partition. A label lives as long from when it was last sent: what it
    was about is gone by then, or never came, and the counts that it went into are kept.
    """
    today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    cutoff = lower_bound(today - timedelta(days=days))
    connection.execute(sa.delete(label).where(label.c.received_at < today - timedelta(days=days)))
    gone = (
        sa.delete(job).where(job.c.id < cutoff, job.c.state.in_(TERMINAL)).returning(job.c.tenant, job.c.bytes_stored)
    )
    removed = gone.cte("gone")
    count = sa.func.count().label("jobs")
    freed = sa.func.coalesce(sa.func.sum(removed.c.bytes_stored), 0).label("bytes")
    by_tenant = connection.execute(sa.select(removed.c.tenant, count, freed).group_by(removed.c.tenant)).all()
    oldest_open = connection.execute(
        sa.select(job.c.id).where(job.c.id < cutoff).order_by(job.c.id).limit(1)
    ).scalar_one_or_none()
    for name, end in _partitions(connection):
        if lower_bound(end) <= (oldest_open or cutoff):
            connection.execute(sa.text("SELECT scorehouse_drop_partition(:name)"), {"name": name})
    usage.sweep(connection, days=days)
    usage.removed(connection, {row.tenant: int(row.bytes) for row in by_tenant})
    return sum(row.jobs for row in by_tenant)


def horizon(days: int) -> datetime:
    """Jobs created before this are removed, or may be at any moment."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)


def _partitions(connection: Connection) -> list[tuple[str, datetime]]:
    """The daily partitions: name and end of the day."""
    names = connection.execute(
        sa.text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'prediction_block'::regclass")
    ).scalars()
    return [
        (name, datetime.strptime(name, _DAY).replace(tzinfo=UTC) + timedelta(days=1))
        for name in sorted(names)
        if name != "prediction_block_default"
    ]
