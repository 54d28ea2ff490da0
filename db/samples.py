"""Stored inputs to look at again: of a version's window, chosen at random; the last ones; those whose rows have labels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from db.profiles import VALIDATION
from db.sql import statement
from db.tables import chunk, job

# Singles are a chunk each: this many are looked at together.
_CHUNKS = 500


def chunks_between(
    connection: Connection, version_id: int, start: datetime, end: datetime, *, rows: int, seed: int
) -> list[Any]:
    """Chunks (payload, columns, format, delimiter) that were done and whose rows stand for a time in the window.

    They come in an order that is random but the same for the same `seed`, and are as many as have `rows` rows, about.
    """
    scored = (
        sa.select(chunk.c.job_id, chunk.c.number, chunk.c.rows)
        .join(job, job.c.id == chunk.c.job_id)
        .where(
            chunk.c.version_id == version_id,
            chunk.c.state == "done",
            job.c.state != "receiving",
            job.c.endpoint != VALIDATION,
            job.c.inputs_removed_at.is_(None),
        )
    )
    # An index for each: by when a chunk was done, and by the time that its job says.
    of_window = sa.union_all(
        scored.where(job.c.as_of.is_(None), chunk.c.finished_at >= start, chunk.c.finished_at < end),
        scored.where(job.c.version_id == version_id, job.c.as_of >= start, job.c.as_of < end),
    ).subquery()
    shuffled = sa.func.md5(sa.func.concat(seed, of_window.c.job_id, of_window.c.number)).label("place")
    within = sa.select(of_window, shuffled).order_by(shuffled).limit(rows).subquery()
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


def labelled_chunks(
    connection: Connection, version_ids: Sequence[int], *, max_age_days: int, limit: int
) -> Sequence[sa.Row[Any]]:
    """Chunks that may have labelled rows, newest first: job_id, number, version_id, first_row, rows, at, received."""
    return connection.execute(
        statement("labelled_chunks"),
        {"version_ids": list(version_ids), "max_age_days": max_age_days, "limit": limit},
    ).all()


def labelled_rows(connection: Connection, model_id: int, chunks: Sequence[sa.Row[Any]]) -> Sequence[sa.Row[Any]]:
    """The rows of chunks that have a label, in order: job_id, number, row, record_key, label."""
    return connection.execute(
        statement("labelled_rows"),
        {
            "model_id": model_id,
            "job_ids": [str(each.job_id) for each in chunks],
            "numbers": [each.number for each in chunks],
            "first_rows": [each.first_row for each in chunks],
            "ends": [each.first_row + each.rows for each in chunks],
        },
    ).all()


def inputs(connection: Connection, job_id: UUID, number: int) -> Any | None:
    """A stored chunk: payload, first_row, columns, format, delimiter. None: retention took it, or its input."""
    return connection.execute(
        sa.select(chunk.c.payload, chunk.c.first_row, job.c.columns, job.c.format, job.c.delimiter)
        .join(job, job.c.id == chunk.c.job_id)
        .where(chunk.c.job_id == job_id, chunk.c.number == number, job.c.inputs_removed_at.is_(None))
    ).one_or_none()


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
            job.c.version_id.in_(version_ids),
            job.c.state != "receiving",
            job.c.endpoint != VALIDATION,
            job.c.inputs_removed_at.is_(None),
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
