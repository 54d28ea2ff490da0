"""A rescue that cannot decide on one chunk still rescues the others."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Engine

from db import chunks
from db.engine import transaction
from db.tables import chunk


def test_a_damaged_chunk_does_not_hold_up_the_rescue_of_others(engine: Engine, make_job: Callable[..., UUID]) -> None:
    damaged, sound = make_job(4), make_job(4)
    for _ in range(2):  # after the second crash a chunk is cut in two, for which its payload must be read
        for suspects in (True, False):
            chunks.claim(engine, lane="bulk", count=2, owner="dead", lease_seconds=60, suspects=suspects)
        with transaction(engine) as connection:
            connection.execute(sa.update(chunk).where(chunk.c.job_id == damaged).values(payload=b"rotten"))
        rescued = chunks.rescue(engine, poison_attempts=3, dead_owners=["dead"])
    assert rescued == 1
    with transaction(engine) as connection:
        rows = connection.execute(sa.select(chunk.c.state, chunk.c.rows).where(chunk.c.job_id == sound)).all()
    assert sorted(tuple(row) for row in rows) == [("queued", 2), ("queued", 2)]
