"""Retention: what is past its age goes, in small transactions, and what it counted is given back in the same ones.

    inputs          of jobs that are over, after `payload_retention_days`; the job, its results and its row errors stay
    jobs            that are over, after `retention_days`, with chunks, row errors and the bytes of their inputs
    predictions     with the partition of their day, as soon as no job of that day is left
    the rest        labels, the counts of days past, trainings that ended, transitions of alerts

A job that is not over is never touched, whatever its age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

import logs
from db import alerts, trainings, usage
from db.engine import transaction
from db.ids import lower_bound
from db.jobs import TERMINAL
from db.tables import chunk, job, label, prediction_block
from errors import Unavailable

_log = logs.get(__name__)

_DAY = "prediction_block_%Y%m%d"
# Of one transaction: a statement has a minute, and a chunk is up to a thousand entries of its TOAST table.
_JOBS = 500
_CHUNKS = 2_000
# A partition is made and dropped under a lock that keeps everybody from all of them: do not queue for it for long.
LOCK_TIMEOUT = "2s"
_ONE_DAY = timedelta(days=1)


def remove_inputs(engine: Engine, *, days: int, now: datetime | None = None) -> int:
    """Empty the chunks of jobs that are over and of days that ended more than `days` ago; returns of how many jobs.

    A chunk without a payload has no bytes in it: one that was stored has some, whatever it holds.
    """
    wanted = job.c.inputs_removed_at.is_(None)
    return sum(1 for _ in _batches(engine, _cutoff(days, now), wanted, _empty))


def remove_jobs(engine: Engine, *, days: int, now: datetime | None = None) -> int:
    """Remove jobs that are over and of days that ended more than `days` ago; returns how many."""
    return sum(1 for _ in _batches(engine, _cutoff(days, now), sa.true(), _delete))


def drop_days(engine: Engine, *, days: int, now: datetime | None = None) -> list[str]:
    """Drop the partitions of days that ended more than `days` ago and have no job any more; returns their names.

    A day with a job that is still open keeps its partition, without the predictions of the others. One that is being read
    is tried again next time.
    """
    cutoff, dropped = _cutoff(days, now), []
    with transaction(engine) as connection:
        past = [(name, day) for name, day in _partitions(connection) if lower_bound(day + _ONE_DAY) <= cutoff]
    for name, day in past:
        with transaction(engine) as connection:
            of_day = job.c.id >= lower_bound(day), job.c.id < lower_bound(day + _ONE_DAY)
            if connection.execute(sa.select(sa.exists().where(*of_day))).scalar_one():
                continue
        try:
            with transaction(engine) as connection:
                do_not_queue(connection)
                connection.execute(sa.text("SELECT scorehouse_drop_partition(:name)"), {"name": name})
        except Unavailable as exc:
            _log.info("partition_kept", partition=name, hint="it is dropped the next time", reason=str(exc))
        else:
            dropped.append(name)
    with transaction(engine) as connection:  # of days that are kept, and what came into no day's partition
        without_job = ~sa.exists().where(job.c.id == prediction_block.c.job_id)
        connection.execute(sa.delete(prediction_block).where(prediction_block.c.job_id < cutoff, without_job))
    return dropped


def sweep(connection: Connection, *, days: int, trail_days: int, now: datetime | None = None) -> None:
    """Remove what belongs to no job.

    A label lives from when it was last sent as long as a job does: what it was about is gone by then, or never came, and the
    counts that it went into are kept.
    """
    connection.execute(sa.delete(label).where(label.c.received_at < horizon(days, now)))
    usage.sweep(connection, days=days)
    trainings.sweep(connection, days=trail_days)
    alerts.sweep(connection, days=trail_days)


def do_not_queue(connection: Connection) -> None:
    """Let this transaction wait for a lock of the whole table for a moment only: whoever comes later waits behind it.

    What cannot be had in time raises Unavailable.
    """
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))


def horizon(days: int, now: datetime | None = None) -> datetime:
    """Jobs created before this are removed, or may be at any moment."""
    return (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)


def _cutoff(days: int, now: datetime | None) -> UUID:
    return lower_bound(horizon(days, now))


def _batches(
    engine: Engine,
    cutoff: UUID,
    wanted: sa.ColumnElement[bool],
    take: Callable[[Connection, list[UUID]], Sequence[Any]],
) -> Iterator[UUID]:
    """Do something to jobs that are over, the oldest first, and give the bytes that they count back; yields their ids.

    Args:
        wanted: what else must be true of a job.
        take: does it, and returns the jobs that it was done to, locked (id, tenant, bytes_stored).
    """
    after = UUID(int=0)
    while True:
        with transaction(engine) as connection:
            chosen = _next(connection, cutoff, wanted, after)
            if not chosen:
                return
            done = take(connection, chosen)
            freed: Counter[str] = Counter()
            for row in done:
                freed[row.tenant] += row.bytes_stored or 0
            usage.removed(connection, freed)
        yield from (row.id for row in done)
        after = chosen[-1]


def _next(connection: Connection, cutoff: UUID, wanted: sa.ColumnElement[bool], after: UUID) -> list[UUID]:
    """Some hundreds of jobs, and no more of them than have some thousands of chunks."""
    oldest = (
        sa.select(job.c.id, job.c.chunks_total)
        .where(job.c.id > after, job.c.id < cutoff, job.c.state.in_(TERMINAL), wanted)
        .order_by(job.c.id)
        .limit(_JOBS)
        .subquery()
    )
    before = sa.func.sum(oldest.c.chunks_total).over(order_by=oldest.c.id, rows=(None, -1)).label("before")
    counted = sa.select(oldest.c.id, sa.func.coalesce(before, 0).label("before")).subquery()
    return list(
        connection.execute(sa.select(counted.c.id).where(counted.c.before < _CHUNKS).order_by(counted.c.id)).scalars()
    )


def _empty(connection: Connection, ids: list[UUID]) -> Sequence[Any]:
    """Under the lock of the jobs, so that two who are at it give nothing back twice."""
    rows = connection.execute(
        sa.select(job.c.id, job.c.tenant, job.c.bytes_stored)
        .where(job.c.id.in_(ids), job.c.inputs_removed_at.is_(None))
        .order_by(job.c.id)
        .with_for_update(key_share=True)
    ).all()
    mine = [row.id for row in rows]
    connection.execute(sa.update(chunk).where(chunk.c.job_id.in_(mine)).values(payload=b""))
    # What counts against no quota still does not.
    nothing = sa.case((job.c.bytes_stored.is_not(None), 0))
    connection.execute(
        sa.update(job).where(job.c.id.in_(mine)).values(inputs_removed_at=sa.func.now(), bytes_stored=nothing)
    )
    return rows


def _delete(connection: Connection, ids: list[UUID]) -> Sequence[Any]:
    gone = sa.delete(job).where(job.c.id.in_(ids)).returning(job.c.id, job.c.tenant, job.c.bytes_stored)
    return connection.execute(gone).all()


def _partitions(connection: Connection) -> list[tuple[str, datetime]]:
    """The daily partitions: name and day."""
    names = connection.execute(
        sa.text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'prediction_block'::regclass")
    ).scalars()
    return [
        (name, datetime.strptime(name, _DAY).replace(tzinfo=UTC))
        for name in sorted(names)
        if name != "prediction_block_default"
    ]
