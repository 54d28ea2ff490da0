"""Results: predictions and row errors, written by COPY and read back in input order."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from db.engine import copy as copy_rows
from db.engine import cursor_of
from db.ids import lower_bound
from db.tables import prediction, row_error
from records.row_error import RowError

# The order of the fields in the stream that `copy` takes; `scored_at` is the time of the transaction.
COLUMNS = ("job_id", "row", "version_id", "record_key", "prediction", "probability", "probabilities")
ERROR_COLUMNS = ("row", "line", "key", "code", "column", "message", "raw")

_DAYS_AHEAD = 7


@dataclass(frozen=True, slots=True)
class Range:
    """A contiguous run of a job's rows: `first` <= row < `end`."""

    first: int
    end: int


def copy(connection: Connection, stream: bytes) -> None:
    """Append predictions: the fields of `COLUMNS` as `db.binary_copy.encode` gives them."""
    if stream:
        copy_rows(connection, "prediction", COLUMNS, stream)


def copy_errors(connection: Connection, errors: Sequence[tuple[UUID, RowError]]) -> None:
    """Append row errors of any jobs."""
    if not errors:
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for job_id, error in errors:
        writer.writerow((job_id, error.row, error.line, error.key, error.column, error.code, error.message, error.raw))
    buffer.seek(0)
    cursor_of(connection).copy_expert(
        "COPY row_error (job_id, row, line, record_key, column_name, code, message, raw) FROM STDIN "
        "(FORMAT csv, FORCE_NOT_NULL (message, raw))",
        buffer,
    )


def export(connection: Connection, job_id: UUID, rows: Range, columns: Sequence[str]) -> bytes:
    """The predictions of some rows in input order, as CSV without a header.

    Args:
        columns: SQL expressions over `prediction`; they are code of ours, never input.
    """
    buffer = io.BytesIO()
    cursor = cursor_of(connection)
    query = cursor.mogrify(
        f"SELECT {', '.join(columns)} FROM prediction WHERE job_id = %s AND row >= %s AND row < %s ORDER BY row",  # noqa: S608 - columns are ours
        (str(job_id), rows.first, rows.end),
    ).decode()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", buffer)
    return buffer.getvalue()


def one(connection: Connection, job_id: UUID) -> sa.Row[Any] | None:
    """The prediction of a job of one row."""
    return connection.execute(sa.select(prediction).where(prediction.c.job_id == job_id, prediction.c.row == 1)).first()


def of_job(connection: Connection, job_id: UUID) -> Sequence[sa.Row[Any]]:
    """All predictions of a small job, in input order."""
    return connection.execute(
        sa.select(prediction).where(prediction.c.job_id == job_id).order_by(prediction.c.row)
    ).all()


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
    connection.execute(sa.delete(prediction).where(prediction.c.job_id == job_id))


def ensure_partitions(connection: Connection, today: datetime | None = None) -> list[str]:
    """Make the daily partitions from yesterday to a week ahead; returns the names of the new ones.

    A job belongs to the partition of the day in its id, so a worker never has to choose one.
    """
    start = (today or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    made = []
    for name, low, high in _days(start - timedelta(days=1), _DAYS_AHEAD + 2):
        exists = connection.execute(sa.text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}).scalar_one()
        if not exists:
            connection.execute(
                sa.text(f"CREATE TABLE {name} PARTITION OF prediction FOR VALUES FROM ('{low}') TO ('{high}')")
            )
            made.append(name)
    return made


def _days(start: datetime, count: int) -> Iterator[tuple[str, UUID, UUID]]:
    for offset in range(count):
        day = start + timedelta(days=offset)
        yield f"prediction_{day:%Y%m%d}", lower_bound(day), lower_bound(day + timedelta(days=1))
