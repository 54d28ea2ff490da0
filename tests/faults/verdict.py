"""The check of one job after a fault, by what the tables hold: A to F of the contract (G is timed by the trial).

A  the job reached a terminal state                   B  each row is exactly one prediction or one row error
C  scores equal those of a single process             D  one terminal transition
E  the counters equal what the tables hold            F  attempts are bounded
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import sqlalchemy as sa
from sqlalchemy import Engine

from db.engine import transaction
from db.jobs import TERMINAL
from db.tables import chunk, job, row_error

TOLERANCE = 1e-12

# Whoever changes the state of a job leaves a line here, whatever process it is.
WITNESS = """
CREATE TABLE IF NOT EXISTS witnessed (job_id uuid NOT NULL, old text NOT NULL, new text NOT NULL);
CREATE OR REPLACE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN INSERT INTO witnessed VALUES (NEW.id, OLD.state, NEW.state); RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER witness AFTER UPDATE OF state ON job
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION witness();
"""


@dataclass(frozen=True)
class Expected:
    """What rows 1…n must end as: a label (n,) with a probability (n,), or by row number the code of a row error."""

    predictions: Any
    probabilities: Any
    errors: Mapping[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.predictions)


@dataclass(frozen=True)
class Verdict:
    """`problems` says what does not hold, by its letter; `lost` and `duplicated` count rows."""

    problems: list[str]
    lost: int
    duplicated: int


def install_witness(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(sa.text(WITNESS))


def check(engine: Engine, job_id: UUID | str, expected: Expected, *, poison_attempts: int = 3) -> Verdict:
    """Judge a job. It needs the witness, who must have been there since before the job ended."""
    with transaction(engine) as connection:
        row = connection.execute(sa.select(job).where(job.c.id == job_id)).one()
        chunks = connection.execute(sa.select(chunk).where(chunk.c.job_id == job_id)).all()
        errors = dict(
            connection.execute(sa.select(row_error.c.row, row_error.c.code).where(row_error.c.job_id == job_id)).all()
        )
        ends = connection.execute(
            sa.text("SELECT count(*) FROM witnessed WHERE job_id = :job AND new = ANY (:terminal)"),
            {"job": job_id, "terminal": list(TERMINAL)},
        ).scalar_one()
    predicted = _predictions(engine, job_id)
    scored = predicted["row"].to_numpy()
    covered = np.union1d(scored, np.array(list(errors), dtype=int))
    lost = expected.rows - len(covered)
    duplicated = len(scored) + len(errors) - len(covered)
    problems = [
        *_ended(row),
        *_each_row_once(covered, lost, duplicated, expected),
        *_same_scores(predicted, errors, expected),
        *([] if ends == 1 else [f"D: the job made {ends} terminal transitions"]),
        *_balanced(row, chunks, len(scored), len(errors), expected),
        *_bounded(chunks, expected.rows, poison_attempts),
    ]
    return Verdict(problems, max(lost, 0), duplicated)


def _predictions(engine: Engine, job_id: UUID | str) -> pd.DataFrame:
    """row, prediction, probability, in the order of rows. By COPY, for a million rows."""
    buffer = io.BytesIO()
    raw = engine.raw_connection()
    try:
        with raw.cursor() as cursor:
            cursor.copy_expert(
                "COPY (SELECT row, prediction, probability FROM prediction "
                f"WHERE job_id = '{UUID(str(job_id))}' ORDER BY row) TO STDOUT (FORMAT csv, HEADER)",
                buffer,
            )
    finally:
        raw.close()
    buffer.seek(0)
    columns = {"row": pa.int64(), "prediction": pa.string(), "probability": pa.float64()}
    table = pacsv.read_csv(buffer, convert_options=pacsv.ConvertOptions(column_types=columns))
    return table.to_pandas()


def _ended(row: sa.Row[Any]) -> Iterator[str]:
    if row.state not in TERMINAL:
        yield f"A: the job is {row.state}, with {row.chunks_left} chunks left"


def _each_row_once(covered: Any, lost: int, duplicated: int, expected: Expected) -> Iterator[str]:
    if lost:
        yield f"B: {lost} rows have neither prediction nor row error"
    if duplicated:
        yield f"B: {duplicated} rows have more than one outcome"
    if len(covered) and (covered[0] < 1 or covered[-1] > expected.rows):
        yield f"B: rows {covered[0]} to {covered[-1]} have outcomes, the file has rows 1 to {expected.rows}"


def _same_scores(predicted: pd.DataFrame, errors: Mapping[int, str], expected: Expected) -> Iterator[str]:
    if errors != dict(expected.errors):
        differing = sorted(set(errors.items()) ^ set(expected.errors.items()))
        yield f"C: {len(differing)} row errors differ from what is expected, the first: {differing[:3]}"
    known = predicted[predicted["row"].between(1, expected.rows)]
    places = known["row"].to_numpy() - 1
    if not (known["prediction"].to_numpy() == expected.predictions[places]).all():
        yield "C: classes differ from those of a single process"
    if not np.allclose(known["probability"], expected.probabilities[places], rtol=0, atol=TOLERANCE):
        yield "C: probabilities differ from those of a single process"


def _balanced(
    row: sa.Row[Any], chunks: list[sa.Row[Any]], scored: int, errored: int, expected: Expected
) -> Iterator[str]:
    left = [item for item in chunks if item.state in {"queued", "running"}]
    counted = {
        "rows_total": (row.rows_total, expected.rows),
        "rows_succeeded": (row.rows_succeeded, scored),
        "rows_errored": (row.rows_errored, errored),
        "chunks_left": (row.chunks_left, len(left)),
        "chunks_total": (row.chunks_total, len(chunks)),
        "rows of chunks": (sum(item.rows for item in chunks), expected.rows),
        "errors of chunks": (sum(item.rows_errored for item in chunks), errored),
    }
    for name, (counter, tables) in counted.items():
        if counter != tables:
            yield f"E: {name} is {counter}, the tables hold {tables}"


def _bounded(chunks: list[sa.Row[Any]], rows: int, poison_attempts: int) -> Iterator[str]:
    """A claim and a rescue count one epoch each: two crashes of the whole, one at each cut, then those of one row."""
    most = 2 * (2 + math.ceil(math.log2(max(rows, 2))) + poison_attempts)
    for item in chunks:
        if item.epoch > most or item.crashes > max(2, poison_attempts):
            yield f"F: chunk {item.number} has epoch {item.epoch} (bound {most}) and {item.crashes} crashes"
