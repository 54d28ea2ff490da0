"""Blocks of predictions: what goes in comes out row by row, by job and by record key."""

from __future__ import annotations

from uuid import UUID

import pytest
import sqlalchemy as sa
from predicted_rows import predicted
from sqlalchemy import Engine

from db import predictions
from db.engine import transaction
from db.ids import uuid7
from db.tables import prediction

NAMES = ["row", "record_key", "prediction", "probability"]


def store(engine: Engine, *blocks: bytes) -> None:
    with transaction(engine) as connection:
        for block in blocks:
            predictions.copy(connection, block)


def exported(engine: Engine, job_id: UUID, first_row: int) -> list[str]:
    with transaction(engine) as connection:
        return predictions.export(connection, job_id, first_row, NAMES).decode().splitlines()


# Of one row, of a few, of so many that a filter stands in for the index; and without some rows, which errored.
@pytest.mark.parametrize("rows", [[5], [5, 6, 7], [5, 7], list(range(5, 500)), [*range(5, 99), *range(200, 300)]])
def test_each_row_of_a_block_is_there_once(engine: Engine, rows: list[int]) -> None:
    job_id = uuid7()
    store(engine, predicted(job_id, rows), predicted(uuid7(), rows))
    expected = [(row, f"k{row}", "1", 0.5) for row in rows]
    with transaction(engine) as connection:
        seen = connection.execute(
            sa.select(*(prediction.c[name] for name in NAMES)).where(prediction.c.job_id == job_id)
        ).all()
        unfolded = predictions.of_job(connection, job_id)
    assert sorted(map(tuple, seen)) == expected
    assert [(item.row, item.record_key, item.prediction, item.probability) for item in unfolded] == expected
    assert exported(engine, job_id, rows[0]) == [f"{row},k{row},1,0.5" for row in rows]


def test_the_database_refuses_a_chunk_that_comes_twice(engine: Engine) -> None:
    job_id = uuid7()
    store(engine, predicted(job_id, [1, 2]))
    with pytest.raises(Exception, match=r"prediction_block.*_pkey"):
        store(engine, predicted(job_id, [1, 2]))


def test_the_database_refuses_columns_of_different_lengths(engine: Engine) -> None:
    insert = sa.text(
        "INSERT INTO prediction_block (job_id, first_row, version_id, predictions, record_keys) "
        "VALUES (:job, 1, 1, '{1,0}', '{a}')"
    )
    with pytest.raises(sa.exc.IntegrityError, match="as_many"), transaction(engine) as connection:
        connection.execute(insert, {"job": uuid7()})


@pytest.mark.parametrize("rows", [range(1, 4), range(1, 1000)], ids=["indexed", "filtered"])
def test_a_key_is_found_in_all_jobs_the_newest_first(engine: Engine, rows: range) -> None:
    old, new, other_version = uuid7(), uuid7(), uuid7()
    store(engine, predicted(new, list(rows)), predicted(old, list(rows)), predicted(other_version, list(rows), 2))
    with transaction(engine) as connection:
        found = predictions.of_key(connection, [1], "k2", limit=10)
        assert [(item.job_id, item.row) for item in found] == [
            (job_id, 2) for job_id in sorted([old, new], reverse=True)
        ]
        assert len(predictions.of_key(connection, [1, 2], "k2", limit=2)) == 2
        assert predictions.of_key(connection, [1], "k0", limit=10) == []


@pytest.mark.parametrize("rows", [3, 1000], ids=["indexed", "filtered"])
def test_looking_for_a_key_reads_no_other_block(engine: Engine, rows: int) -> None:
    """By the plan: an index for small blocks, 64 bytes of its filter for each of the others."""
    store(engine, *(predicted(uuid7(), list(range(start, start + rows))) for start in range(0, 40 * rows, rows)))
    with engine.connect() as connection:
        connection.execute(sa.text("SET enable_seqscan = off"))  # the planner's choice for as small a table
        wanted = predictions.probe("k7")
        plan = "\n".join(
            connection.execute(
                sa.text("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + predictions.statement("predictions_of_key").text),
                {"version_ids": [1], "key": "k7", "place": wanted.place, "bits": wanted.bits, "limit": 10},
            ).scalars()
        )
    assert "record_keys_idx" in plan
    assert "version_id_idx" in plan or "version_id_job_id_idx" in plan
    opened = [line for line in plan.splitlines() if "CTE Scan on block" in line]
    assert len(opened) == 1
    assert "rows=1.00 loops=1" in opened[0]
