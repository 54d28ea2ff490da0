"""What tenants use of their quotas, counted in the transaction that takes it or gives it back.

    jobs_open       +1 with the job, -1 with its terminal state or when its upload is discarded
    rows_per_day    + with each chunk, to the day (UTC) on which its job was created; - when an upload is discarded
    bytes_stored    + with each chunk, packed, and each artefact; - when retention or a discard removes the job
    uploads_at_once a place per body that is being received, with a lease

Only what a tenant submits counts: `job.bytes_stored` is NULL for the jobs of deployments. The tenant's row of
`tenant_usage` is the lock that makes this exact; take it last in a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db.ids import uuid7
from db.quotas import Quotas
from db.sql import statement
from db.tables import job, model, model_version, tenant_day, tenant_upload, tenant_usage
from errors import Conflict, OverQuota

OPEN = ("receiving", "queued", "running")

_SOON_SECONDS = 2
# Bytes become free when retention removes jobs, once an hour; whoever sees this may as well look for something to free.
_BYTES_SECONDS = 3600
_UNITS = {
    "rows_per_day": "rows a day",
    "bytes_stored": "bytes stored",
    "jobs_open": "open jobs",
    "uploads_at_once": "uploads at once",
}
_REMEDIES = {
    "rows_per_day": "the count begins anew at midnight UTC",
    "bytes_stored": "it shrinks when retention removes old jobs",
    "jobs_open": "wait for jobs to end, or cancel some",
    "uploads_at_once": "wait for one to end",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant uses now, by the database's clock."""

    rows_per_day: int
    bytes_stored: int
    jobs_open: int
    uploads_at_once: int
    now: datetime

    @property
    def midnight(self) -> datetime:
        """When the rows of the day begin anew."""
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def take(
    connection: Connection,
    tenant: str,
    limits: Quotas,
    *,
    jobs: int = 0,
    rows: int = 0,
    bytes: int = 0,
    day: date | None = None,
) -> date:
    """Count what a submission takes; the last statement before COMMIT.

    Args:
        day: on which its job was created (UTC), None for a job of this transaction.

    Returns:
        That day.

    Raises:
        OverQuota: it is more than is left; roll back.
    """
    amounts = {"tenant": tenant, "jobs": jobs, "rows": rows, "bytes": bytes, "day": day}
    row = connection.execute(statement("take"), amounts).one()
    for name, taken in (("jobs_open", jobs), ("rows_per_day", rows), ("bytes_stored", bytes)):
        limit, used = getattr(limits, name), getattr(row, name)
        if limit is not None and taken and used > limit:
            raise over(connection, name, limit, used - taken, taken)
    counted: date = row.day
    return counted


def over(connection: Connection, name: str, limit: int, used: int, asked: int) -> OverQuota:
    """The refusal, with when to come again."""
    seconds = _SOON_SECONDS
    if name == "rows_per_day":
        seconds = connection.execute(
            sa.text("SELECT ceil(EXTRACT(epoch FROM date_trunc('day', now()) + interval '1 day' - now()))")
        ).scalar_one()
    elif name == "bytes_stored":
        seconds = _BYTES_SECONDS
    detail = f"over the quota of {limit:,} {_UNITS[name]}: {used:,} used, {asked:,} more asked for; {_REMEDIES[name]}"
    return OverQuota(detail, quota=name, limit=limit, used=used, retry_after=int(seconds))


def grow(
    connection: Connection, tenant: str, job_id: UUID, limits: Quotas, *, rows: int, bytes: int, day: date | None
) -> date:
    """Count a chunk of a job that is being received, and note it on the job, so that a discard gives back exactly that.

    Returns and raises as `take`, which it ends with.
    """
    connection.execute(
        sa.update(job)
        .where(job.c.id == job_id)
        .values(rows_total=job.c.rows_total + rows, bytes_stored=job.c.bytes_stored + bytes)
    )
    return take(connection, tenant, limits, rows=rows, bytes=bytes, day=day)


def bytes_left(connection: Connection, tenant: str, limits: Quotas) -> int | None:
    """What a tenant may still store, None for no limit; a hint: `take` decides."""
    if limits.bytes_stored is None:
        return None
    used = connection.execute(
        sa.select(tenant_usage.c.bytes_stored).where(tenant_usage.c.tenant == tenant)
    ).scalar_one_or_none()
    return max(limits.bytes_stored - (used or 0), 0)


def ended(connection: Connection, jobs: Mapping[str, int]) -> None:
    """Give back the places of jobs that reached their terminal state: how many of each tenant."""
    _give_back(connection, {tenant: (number, 0) for tenant, number in jobs.items()})


def removed(connection: Connection, bytes: Mapping[str, int]) -> None:
    """Give back the bytes of jobs that retention removed, by tenant."""
    _give_back(connection, {tenant: (0, number) for tenant, number in bytes.items()})


def discarded(connection: Connection, row: sa.Row[*tuple[Any, ...]]) -> None:
    """Give back all that a removed upload took: tenant, created_at, rows_total and bytes_stored of its job."""
    if row.bytes_stored is None:
        return
    _give_back(connection, {row.tenant: (1, row.bytes_stored)})
    connection.execute(
        sa.update(tenant_day)
        .where(tenant_day.c.tenant == row.tenant, tenant_day.c.day == row.created_at.date())
        .values(rows=tenant_day.c.rows - row.rows_total)
    )


def of(connection: Connection, tenant: str) -> Usage:
    """What a tenant uses."""
    row = connection.execute(
        sa.select(tenant_usage.c.jobs_open, tenant_usage.c.bytes_stored).where(tenant_usage.c.tenant == tenant)
    ).one_or_none()
    rows = connection.execute(
        sa.select(tenant_day.c.rows).where(tenant_day.c.tenant == tenant, tenant_day.c.day == sa.func.current_date())
    ).scalar_one_or_none()
    now = connection.execute(sa.select(sa.func.now())).scalar_one()
    uploads = _uploads(connection, tenant)
    return Usage(rows or 0, row.bytes_stored if row else 0, row.jobs_open if row else 0, uploads, now)


def enter(connection: Connection, tenant: str, limits: Quotas, *, lease_seconds: float) -> UUID:
    """Take a place for a body; returns its id.

    Raises:
        OverQuota
    """
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"upload {tenant}"}
    )
    connection.execute(
        sa.delete(tenant_upload).where(tenant_upload.c.tenant == tenant, tenant_upload.c.lease_until <= sa.func.now())
    )
    used = _uploads(connection, tenant)
    if limits.uploads_at_once is not None and used >= limits.uploads_at_once:
        raise over(connection, "uploads_at_once", limits.uploads_at_once, used, 1)
    place = uuid7()
    connection.execute(sa.insert(tenant_upload).values(id=place, tenant=tenant, lease_until=_in_seconds(lease_seconds)))
    return place


def stay(connection: Connection, tenant: str, place: UUID, *, lease_seconds: float) -> None:
    """Keep a place.

    Raises:
        Conflict: its lease was over, and another body may have it.
    """
    result = connection.execute(
        sa.update(tenant_upload)
        .where(
            tenant_upload.c.id == place,
            tenant_upload.c.tenant == tenant,
            tenant_upload.c.lease_until > sa.func.now(),
        )
        .values(lease_until=_in_seconds(lease_seconds))
    )
    if result.rowcount == 0:
        raise Conflict("the upload stalled for so long that it was given up; send it again")


def leave(connection: Connection, tenant: str, place: UUID) -> None:
    connection.execute(sa.delete(tenant_upload).where(tenant_upload.c.id == place, tenant_upload.c.tenant == tenant))


def recount(connection: Connection, tenant: str) -> None:
    """Count anew from the jobs and versions themselves; reads all jobs of the tenant.

    With its row locked first, nobody else's count is lost: whoever has counted has committed, and whoever has not waits.
    """
    _lock(connection, tenant)
    connection.execute(
        sa.update(tenant_usage)
        .where(tenant_usage.c.tenant == tenant)
        .values(jobs_open=_jobs_open(tenant), bytes_stored=_bytes_of_jobs(tenant) + _bytes_of_artefacts(tenant))
    )
    today = tenant_day.c.tenant == tenant, tenant_day.c.day == sa.func.current_date()
    connection.execute(sa.update(tenant_day).where(*today).values(rows=_rows_of_today(tenant)))


def recount_open(connection: Connection, tenant: str) -> None:
    """Count the open jobs anew: what a release that knows no quotas ended was not given back."""
    _lock(connection, tenant)
    connection.execute(
        sa.update(tenant_usage).where(tenant_usage.c.tenant == tenant).values(jobs_open=_jobs_open(tenant))
    )


def tenants(connection: Connection) -> list[str]:
    """All that have ever used anything."""
    return list(connection.execute(sa.select(tenant_usage.c.tenant).order_by(tenant_usage.c.tenant)).scalars())


def sweep(connection: Connection, *, days: int) -> None:
    """Forget the counts of days past, and places whose lease is over."""
    connection.execute(sa.delete(tenant_day).where(tenant_day.c.day < sa.func.current_date() - days))
    connection.execute(sa.delete(tenant_upload).where(tenant_upload.c.lease_until <= sa.func.now()))


def _lock(connection: Connection, tenant: str) -> None:
    """Have the tenant's row, and it alone changes; what is read after this sees all that was counted before."""
    values = insert(tenant_usage).values(tenant=tenant)
    connection.execute(values.on_conflict_do_update(index_elements=[tenant_usage.c.tenant], set_={"tenant": tenant}))


_GIVE_BACK = (
    sa.update(tenant_usage)
    .where(tenant_usage.c.tenant == sa.bindparam("of"))
    .values(
        jobs_open=tenant_usage.c.jobs_open - sa.bindparam("jobs"),
        bytes_stored=tenant_usage.c.bytes_stored - sa.bindparam("bytes"),
    )
)


def _give_back(connection: Connection, amounts: Mapping[str, tuple[int, int]]) -> None:
    for tenant in sorted(amounts):  # one order for everybody, or two would deadlock
        jobs, bytes = amounts[tenant]
        if jobs or bytes:
            connection.execute(_GIVE_BACK, {"of": tenant, "jobs": jobs, "bytes": bytes})


def _uploads(connection: Connection, tenant: str) -> int:
    query = sa.select(sa.func.count()).where(
        tenant_upload.c.tenant == tenant, tenant_upload.c.lease_until > sa.func.now()
    )
    return int(connection.execute(query).scalar_one())


def _jobs_open(tenant: str) -> sa.ScalarSelect[Any]:
    return (
        sa.select(sa.func.count())
        .where(job.c.tenant == tenant, job.c.state.in_(OPEN), job.c.bytes_stored.is_not(None))
        .scalar_subquery()
    )


def _rows_of_today(tenant: str) -> sa.ScalarSelect[Any]:
    return (
        sa.select(sa.func.coalesce(sa.func.sum(job.c.rows_total), 0))
        .where(job.c.tenant == tenant, job.c.created_at >= sa.func.current_date(), job.c.bytes_stored.is_not(None))
        .scalar_subquery()
    )


def _bytes_of_jobs(tenant: str) -> sa.ScalarSelect[Any]:
    return (
        sa.select(sa.func.coalesce(sa.func.sum(job.c.bytes_stored), 0)).where(job.c.tenant == tenant).scalar_subquery()
    )


def _bytes_of_artefacts(tenant: str) -> sa.ScalarSelect[Any]:
    counted = sa.func.coalesce(model_version.c.bytes_stored, model_version.c.size)
    return (
        sa.select(sa.func.coalesce(sa.func.sum(counted), 0))
        .select_from(model_version.join(model, model.c.id == model_version.c.model_id))
        .where(model.c.tenant == tenant)
        .scalar_subquery()
    )


def _in_seconds(seconds: float) -> sa.ColumnElement[Any]:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
