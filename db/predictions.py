"""Results: predictions and row errors, written by COPY and read back in input order.

Predictions are stored as blocks, one for each chunk that was finished, column by column.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from db.engine import copy as copy_rows
from db.engine import cursor_of, elevated
from db.ids import lower_bound
from db.sql import statement
from db.tables import prediction_block, row_error
from records.key_filter import probe
from records.row_error import RowError

# The order of the fields in the stream that `copy` takes; `scored_at` is the time of the transaction.
COLUMNS = (
    "job_id",
    "first_row",
    "version_id",
    "rows",
    "record_keys",
    "predictions",
    "probability",
    "probabilities",
    "key_filter",
)
ERROR_COLUMNS = ("row", "line", "key", "code", "column", "message", "raw")

# Blocks of more predictions have a filter over their keys, smaller ones an entry per key in an index.
FILTERED_FROM = 65

_DAYS_AHEAD = 7
_LOCK = 0xDA7E5  # one at a time makes partitions


@dataclass(frozen=True, slots=True)
class Range:
    """A contiguous run of a job's rows: `first` <= row < `end`."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """The score of one row; `probability` of a binary classifier, `probabilities` of one with more classes."""

    row: int
    record_key: str | None
    prediction: str
    probability: float | None
    probabilities: list[float] | None
    scored_at: datetime


def copy(connection: Connection, stream: bytes) -> None:
    """Append blocks of predictions: the fields of `COLUMNS` as `db.binary_copy.stream` gives them."""
    if stream:
        copy_rows(connection, "prediction_block", COLUMNS, stream)


def copy_errors(connection: Connection, errors: Sequence[tuple[UUID, RowError]]) -> None:
    """Append row errors of any jobs."""
    if not errors:
        return
    lines = (
        _csv_line(job_id, error.row, error.line, error.key, error.column, error.code, error.message, error.raw)
        for job_id, error in errors
    )
    cursor_of(connection).copy_expert(
        "COPY row_error (job_id, row, line, record_key, column_name, code, message, raw) FROM STDIN (FORMAT csv)",
        io.StringIO("".join(lines)),
    )


def _csv_line(*values: object) -> str:
    """For COPY, which takes an empty field for NULL and `""` for an empty text; the csv module writes both alike."""
    return ",".join("" if value is None else '"' + str(value).replace('"', '""') + '"' for value in values) + "\n"


def export(
    connection: Connection, job_id: UUID, first_row: int, columns: Sequence[str], *, more_classes: int = 0
) -> bytes:
    """The predictions of the chunk that begins at `first_row`, in input order, as CSV without a header.

    Args:
        columns: SQL expressions over `row`, `record_key`, `prediction`, `probability`, and `probability_1` … for each of
            `more_classes`; they are code of ours, never input.
    """
    arrays = {"record_key": "record_keys", "prediction": "predictions", "probability": "probability"}
    for place in range(more_classes):
        low, high = (f"{number} * cardinality(b.predictions)" for number in (place, place + 1))
        arrays[f"probability_{place + 1}"] = f"probabilities[{low} + 1 : {high}]"
    buffer = io.BytesIO()
    cursor = cursor_of(connection)
    # One block, whose elements come in the order in which they are stored.
    query = cursor.mogrify(
        f"SELECT {', '.join(columns)} FROM ("  # noqa: S608 - columns are ours
        "SELECT COALESCE(element.row, b.first_row + place - 1) AS row, "
        f"{', '.join(f'element.{name}' for name in arrays)} FROM prediction_block AS b, "
        f"unnest(b.rows, {', '.join(f'b.{array}' for array in arrays.values())}) "
        f"WITH ORDINALITY AS element (row, {', '.join(arrays)}, place) "
        "WHERE b.job_id = %s AND b.first_row = %s) AS prediction",
        (str(job_id), first_row),
    ).decode()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", buffer)
    return buffer.getvalue()


_OF_JOBS = (
    sa.select(prediction_block)
    .where(prediction_block.c.job_id == sa.any_(sa.bindparam("job_ids", type_=ARRAY(sa.UUID()))))
    .order_by(prediction_block.c.job_id, prediction_block.c.first_row)
)


def of_job(connection: Connection, job_id: UUID) -> list[Prediction]:
    """All predictions of a small job, in input order."""
    return of_jobs(connection, [job_id])[job_id]


def of_jobs(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, list[Prediction]]:
    """The same of several small jobs."""
    found: dict[UUID, list[Prediction]] = {job_id: [] for job_id in job_ids}
    for block in connection.execute(_OF_JOBS, {"job_ids": list(job_ids)}):
        found[block.job_id] += _unfolded(block)
    return found


def of_key(connection: Connection, version_ids: Sequence[int], key: str, *, limit: int) -> Sequence[sa.Row[Any]]:
    """The predictions that any of the versions made for a record key, those of the newest job first.

    The versions are the caller's tenant's: he has looked them up.
    Rows have job_id, row, version_id, record_key, prediction, probability, scored_at.
    """
    wanted = probe(key)
    with elevated(connection):
        return connection.execute(
            statement("predictions_of_key"),
            {
                "version_ids": list(version_ids),
                "key": key,
                "place": wanted.place,
                "bits": wanted.bits,
                "limit": limit,
            },
        ).all()


def _unfolded(block: sa.Row[Any]) -> Iterator[Prediction]:
    count = len(block.predictions)
    for place in range(count):
        yield Prediction(
            row=block.first_row + place if block.rows is None else block.rows[place],
            record_key=None if block.record_keys is None else block.record_keys[place],
            prediction=block.predictions[place],
            probability=None if block.probability is None else block.probability[place],
            probabilities=None if block.probabilities is None else block.probabilities[place::count],
            scored_at=block.scored_at,
        )


def errors(connection: Connection, job_id: UUID, after_row: int, limit: int) -> Sequence[Any]:
    """Row errors in input order, as `ERROR_COLUMNS`, after a row number."""
    return connection.execute(
        sa.select(
            row_error.c.row,
            row_error.c.line,
            row_error.c.record_key.label("key"),
            row_error.c.code,
            row_error.c.column_name.label("column"),
            row_error.c.message,
            row_error.c.raw,
        )
        .where(row_error.c.job_id == job_id, row_error.c.row > after_row)
        .order_by(row_error.c.row)
        .limit(limit)
    ).all()


def error_rows(connection: Connection, job_id: UUID, rows: Range) -> list[int]:
    """The numbers of the errored rows in a range, ascending."""
    query = (
        sa.select(row_error.c.row)
        .where(row_error.c.job_id == job_id, row_error.c.row >= rows.first, row_error.c.row < rows.end)
        .order_by(row_error.c.row)
    )
    return list(connection.execute(query).scalars())


def delete_job(connection: Connection, job_id: UUID) -> None:
    connection.execute(sa.delete(prediction_block).where(prediction_block.c.job_id == job_id))


def ensure_partitions(connection: Connection, today: datetime | None = None) -> list[str]:
    """Make the daily partitions from yesterday to a week ahead; returns the names of the new ones.

    A job belongs to the partition of the day in its id, so a worker never has to choose one. Whoever else makes some waits for
    the end of this transaction, and finds them.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    start = (today or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    made = []
    for name, low, high in _days(start - timedelta(days=1), _DAYS_AHEAD + 2):
        exists = connection.execute(sa.text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}).scalar_one()
        if not exists:
            # The owner's function: whoever works on tables does not own them.
            connection.execute(
                sa.text("SELECT scorehouse_make_partition(:name, :low, :high)"),
                {"name": name, "low": low, "high": high},
            )
            made.append(name)
    return made


def _days(start: datetime, count: int) -> Iterator[tuple[str, UUID, UUID]]:
    for offset in range(count):
        day = start + timedelta(days=offset)
        yield f"prediction_block_{day:%Y%m%d}", lower_bound(day), lower_bound(day + timedelta(days=1))
