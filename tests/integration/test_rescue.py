"""A rescue that cannot decide on one chunk still rescues the others."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import sqlalchemy as sa
from predicted_rows import predicted
from sqlalchemy import Connection, Engine

from db import chunks, predictions
from db.chunks import Outcome
from db.engine import cursor_of, transaction
from db.tables import chunk
from errors import Fenced


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


def test_a_session_that_is_frozen_in_a_copy_does_not_hold_its_chunk_for_ever(
    engine: Engine, make_job: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_FROZEN_SECONDS", 0.0)
    job_id = make_job(1)
    (late,) = chunks.claim(engine, lane="bulk", count=1, owner="frozen", lease_seconds=0)
    in_the_copy, over = threading.Event(), threading.Event()

    class Frozen(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            in_the_copy.set()
            over.wait(60)
            return super().read(size)

    def copy(connection: Connection, stream: bytes) -> None:
        columns = ", ".join(predictions.COLUMNS)
        cursor_of(connection).copy_expert(
            f"COPY prediction_block ({columns}) FROM STDIN (FORMAT binary)", Frozen(stream)
        )

    with monkeypatch.context() as frozen, ThreadPoolExecutor(1) as thread:
        frozen.setattr(predictions, "copy", copy)
        finishing = thread.submit(chunks.finish, engine, [Outcome(late, 1, [])], predicted(job_id, [1]))
        try:
            assert in_the_copy.wait(10)
            assert chunks.rescue(engine, poison_attempts=3) == 0, "it is locked, and rescuers do not wait"
            deadline = time.monotonic() + 10
            while not chunks.rescue(engine, poison_attempts=3):
                assert time.monotonic() < deadline, "the frozen session still holds it"
            (item,) = chunks.claim(engine, lane="bulk", count=1, owner="other", lease_seconds=30, suspects=True)
            frozen.undo()
            chunks.finish(engine, [Outcome(item, 1, [])], predicted(job_id, [1]))
        finally:
            over.set()
        with pytest.raises(Fenced):
            finishing.result()
