"""Stored inputs to look at again: chunks of a version's window, chosen at random, or the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from db.profiles import VALIDATION
from db.tables import chunk, job


def chunks_between(
    connection: Connection, version_id: int, start: datetime, end: datetime, *, rows: int, seed: int
) -> list[Any]:
    """Chunks (payload, columns, format, delimiter) that were done and whose rows stand for a time in the window.

    They come in an order that is random but the same for the same `seed`, and are as many as have `rows` rows, about.
    """
    at = sa.func.coalesce(job.c.as_of, chunk.c.finished_at)
    shuffled = sa.func.md5(sa.func.concat(seed, chunk.c.job_id, chunk.c.number)).label("place")
    within = (
        sa.select(chunk.c.job_id, chunk.c.number, chunk.c.rows, shuffled)
        .join(job, job.c.id == chunk.c.job_id)
        .where(
            chunk.c.version_id == version_id,
            chunk.c.state == "done",
            job.c.state != "receiving",
            job.c.endpoint != VALIDATION,
            at >= start,
            at < end,
        )
        .order_by(shuffled)
        .limit(rows)
        .subquery()
    )
    before = sa.func.sum(within.c.rows).over(order_by=within.c.place, rows=(None, -1))
    counted = sa.select(within, sa.func.coalesce(before, 0).label("before")).subquery()
    return list(
        connection.execute(
            sa.select(chunk.c.payload, job.c.columns, job.c.format, job.c.delimiter)
            .join(counted, sa.and_(counted.c.job_id == chunk.c.job_id, counted.c.number == chunk.c.number))
            .join(job, job.c.id == chunk.c.job_id)
            .where(counted.c.before < 2 * rows)
            .order_by(counted.c.place)
        )
    )


# Singles are a chunk each: this many are looked at together.
_CHUNKS = 500


def last_chunks(
    connection: Connection, version_ids: Sequence[int], *, until: tuple[UUID, int] | None, rows: int
) -> list[Any]:
    """Chunks (job_id, number, rows, payload, columns, format, delimiter) that were done, the newest first.

    Args:
        until: the chunk (job_id, number) to begin with; None: the newest.
        rows: no more chunks than are needed for so many, but one.
    """
    newest = (
        sa.select(chunk.c.job_id, chunk.c.number, chunk.c.rows)
        .join(job, job.c.id == chunk.c.job_id)
        .where(
            chunk.c.version_id.in_(version_ids),
            chunk.c.state == "done",
            job.c.state != "receiving",
            job.c.endpoint != VALIDATION,
        )
        .order_by(chunk.c.job_id.desc(), chunk.c.number.desc())
        .limit(_CHUNKS)
    )
    if until is not None:
        newest = newest.where(sa.tuple_(chunk.c.job_id, chunk.c.number) <= sa.tuple_(*map(sa.literal, until)))
    within = newest.subquery()
    before = sa.func.sum(within.c.rows).over(order_by=[within.c.job_id.desc(), within.c.number.desc()], rows=(None, -1))
    counted = sa.select(within, sa.func.coalesce(before, 0).label("before")).subquery()
    return list(
        connection.execute(
            sa.select(
                chunk.c.job_id,
                chunk.c.number,
                chunk.c.rows,
                chunk.c.payload,
                job.c.columns,
                job.c.format,
                job.c.delimiter,
            )
            .join(counted, sa.and_(counted.c.job_id == chunk.c.job_id, counted.c.number == chunk.c.number))
            .join(job, job.c.id == chunk.c.job_id)
            .where(counted.c.before < rows)
            .order_by(chunk.c.job_id.desc(), chunk.c.number.desc())
        )
    )
