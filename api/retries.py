"""Retrying the failed rows of a job: a child job of just these records, as the caller wrote them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from api.context import Context
from api.tokens import Caller
from db import chunks, jobs, models, predictions, usage
from db.engine import transaction
from db.ids import uuid7
from db.jobs import ChunkSpan, NewJob
from db.predictions import Range
from errors import Conflict, ScorehouseError
from records.payload import unpack
from records.piece import Piece
from records.split import select

_LEASE_SECONDS = 60
_MAX_CHUNK_BYTES = 1 << 30


def retry(context: Context, caller: Caller, job_id: UUID, *, version: str | None) -> UUID:
    """Submit the errored rows of a finished job again; returns the child's id.

    Args:
        version: the version to score with; None: the one that the job was pinned to.

    Raises:
        NotFound: no such job or version.
        Gone: retention took the inputs.
        Conflict: the job is not over, or has no failed rows.
        OverQuota: they are more than the tenant has left.
    """
    limits = context.limits.of(caller.tenant)
    with transaction(context.engine) as connection:
        parent = jobs.get(connection, caller.tenant, job_id)
        if parent.state not in jobs.TERMINAL:
            raise Conflict(
                f"job {job_id} is {parent.state}; wait for its end, or cancel it, before you retry its failed rows"
            )
        if parent.rows_errored == 0:
            raise Conflict(f"job {job_id} has no failed rows to retry")
        jobs.check_inputs(parent)
        pinned = models.pinned(connection, caller.tenant, parent.model, version or parent.model_version)
        spans = [span for span in jobs.spans(connection, job_id) if span.rows_errored]
        child = NewJob(
            id=uuid7(),
            tenant=caller.tenant,
            version_id=pinned.id,
            kind=parent.kind,
            lane=parent.lane,
            format=parent.format,
            columns=parent.columns,
            created_by=caller.subject,
            delimiter=parent.delimiter,
            key_column=parent.key_column,
            metadata=parent.metadata,
            parent_id=parent.id,
            as_of=parent.as_of,
            endpoint=parent.endpoint,
        )
        jobs.receive(connection, child, lease_seconds=_LEASE_SECONDS)
        day = usage.take(connection, child.tenant, limits, jobs=1)
    try:
        rows = 0
        for number, span in enumerate(spans):
            with transaction(context.engine) as connection:
                jobs.renew_upload(connection, child.id, lease_seconds=_LEASE_SECONDS)
                count, stored = _copy_errored(connection, parent.id, child, span, number, first_row=rows + 1)
                usage.grow(connection, child.tenant, child.id, limits, rows=count, bytes=stored, day=day)
                rows += count
        with transaction(context.engine) as connection:
            jobs.seal(connection, child.id, rows=rows, chunks=len(spans), request_hash=None)
    except ScorehouseError:
        with transaction(context.engine) as connection:
            jobs.discard(connection, child.id)
        raise
    context.publisher.want(child.lane, min(len(spans), 4))
    return child.id


def _copy_errored(
    connection: Connection, parent_id: UUID, child: NewJob, span: ChunkSpan, number: int, *, first_row: int
) -> tuple[int, int]:
    """How many rows, and their bytes as stored."""
    errored = predictions.error_rows(connection, parent_id, Range(span.first_row, span.first_row + span.rows))
    data = unpack(jobs.payload(connection, parent_id, span.number), _MAX_CHUNK_BYTES)
    chosen = select(data, [row - span.first_row for row in errored], child.format, child.delimiter)  # type: ignore[arg-type]  # the column is checked
    first_line = first_row + (1 if child.format == "csv" else 0)
    stored = chunks.add(connection, child, number, Piece(first_row, len(errored), first_line, chosen))
    return len(errored), stored
