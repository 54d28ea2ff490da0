"""What Prometheus shows of the queue and the workers, read when it asks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.jobs import OPEN
from db.tables import chunk, job


def open_jobs(connection: Connection) -> dict[str, int]:
    """Jobs that are not over, by state; those that are over are history, and counting them would take ever longer."""
    rows = connection.execute(
        sa.select(job.c.state, sa.func.count().label("count")).where(job.c.state.in_(OPEN)).group_by(job.c.state)
    ).all()
    return dict.fromkeys(OPEN, 0) | {row.state: int(row[1]) for row in rows}


def open_chunks(connection: Connection) -> list[Any]:
    """lane, state, count, oldest (seconds since the oldest queued one could be claimed, else None)."""
    waited = sa.func.extract("epoch", sa.func.now() - sa.func.min(chunk.c.not_before))
    return list(
        connection.execute(
            sa.select(
                chunk.c.lane,
                chunk.c.state,
                sa.func.count().label("number"),
                sa.case((chunk.c.state == "queued", waited)).label("oldest"),
            )
            .where(sa.or_(chunk.c.state == "queued", chunk.c.state == "running"))
            .group_by(chunk.c.lane, chunk.c.state)
        )
    )
