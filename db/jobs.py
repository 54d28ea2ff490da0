"""Jobs: receiving, sealing, listing, canceling, and the counters that end them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY, insert

from db import predictions, profiles, usage
from db.sql import statement
from db.tables import chunk, job, model, model_version
from errors import Conflict, Gone, NotFound

OPEN = ("queued", "running")
TERMINAL = frozenset({"succeeded", "completed_with_errors", "failed", "canceled"})
PRIORITIES = {"high": 0, "normal": 1, "low": 2}

# Waiting clients listen here; the payload is the id of a job that reached its terminal state.
CHANNEL = "scorehouse_job"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a submission fixes before its first row is stored."""

    id: UUID
    tenant: str
    version_id: int
    kind: str
    lane: str
    format: str
    columns: Sequence[str]
    created_by: str
    delimiter: str = ","
    key_column: str | None = None
    priority: str = "normal"
    metadata: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    request_hash: bytes | None = None
    parent_id: UUID | None = None
    as_of: datetime | None = None
    endpoint: str = "jobs"
    # Whether it counts against the tenant's quotas.
    counted: bool = True


def receive(connection: Connection, new: NewJob, *, lease_seconds: float) -> bool:
    """Insert a job that is being uploaded; nobody sees it before `seal`.

    Returns False when its idempotency key is taken; `by_idempotency_key` tells by what.
    """
    values = {
        "id": new.id,
        "tenant": new.tenant,
        "version_id": new.version_id,
        "kind": new.kind,
        "lane": new.lane,
        "priority": PRIORITIES[new.priority],
        "state": "receiving",
        "format": new.format,
        "delimiter": new.delimiter,
        "columns": list(new.columns),
        "key_column": new.key_column,
        "metadata": new.metadata,
        "idempotency_key": new.idempotency_key,
        "request_hash": new.request_hash,
        "created_by": new.created_by,
        "parent_id": new.parent_id,
        "as_of": new.as_of,
        "endpoint": new.endpoint,
        "upload_lease_until": _in_seconds(lease_seconds),
        "bytes_stored": 0 if new.counted else None,
    }
    inserted = connection.execute(
        insert(job)
        .values(**values)
        .on_conflict_do_nothing(index_elements=[job.c.tenant, job.c.idempotency_key])
        .returning(job.c.id)
    ).one_or_none()
    return inserted is not None


@dataclass(frozen=True, slots=True)
class Earlier:
    """The submission that holds an idempotency key."""

    id: UUID
    state: str
    request_hash: bytes | None
    abandoned: bool


def by_idempotency_key(connection: Connection, tenant: str, key: str) -> Earlier | None:
    row = connection.execute(
        sa.select(
            job.c.id,
            job.c.state,
            job.c.request_hash,
            sa.func.coalesce(_given_up(), False).label("abandoned"),
        ).where(job.c.tenant == tenant, job.c.idempotency_key == key)
    ).one_or_none()
    if row is None:
        return None
    return Earlier(row.id, row.state, bytes(row.request_hash) if row.request_hash is not None else None, row.abandoned)


def renew_upload(connection: Connection, job_id: UUID, *, lease_seconds: float) -> None:
    """Keep an upload's lease alive.

    Raises:
        Conflict: the upload was swept as abandoned.
    """
    result = connection.execute(
        sa.update(job)
        .where(job.c.id == job_id, job.c.state == "receiving", job.c.upload_lease_until > sa.func.now())
        .values(upload_lease_until=_in_seconds(lease_seconds))
    )
    if result.rowcount == 0:
        raise Conflict("the upload stalled for so long that it was given up; send it again")


def seal(
    connection: Connection,
    job_id: UUID,
    *,
    rows: int,
    chunks: int,
    request_hash: bytes | None,
) -> str:
    """Make an uploaded job visible; returns its state, which may be terminal already.

    Raises:
        Conflict: the upload was swept as abandoned.
    """
    row = connection.execute(
        statement("seal"),
        {"job_id": job_id, "rows": rows, "chunks": chunks, "request_hash": request_hash},
    ).one_or_none()
    if row is None:
        raise Conflict("the upload stalled for so long that it was given up; send it again")
    if row.state in TERMINAL:
        _notify(connection, [job_id])
        usage.ended(connection, _counted([row]))
    return str(row.state)


def discard(connection: Connection, job_id: UUID) -> None:
    """Remove an upload that did not complete, with whatever was scored of it."""
    connection.execute(sa.delete(chunk).where(chunk.c.job_id == job_id))  # first: no finish can begin after this
    predictions.delete_job(connection, job_id)
    profiles.discard(connection, job_id)
    gone = connection.execute(
        sa.delete(job)
        .where(job.c.id == job_id, job.c.state == "receiving")
        .returning(job.c.tenant, job.c.created_at, job.c.rows_total, job.c.bytes_stored)
    ).one_or_none()
    if gone is not None:
        usage.discarded(connection, gone)


def abandoned(connection: Connection) -> list[UUID]:
    """Uploads whose API process stopped renewing them."""
    query = sa.select(job.c.id).where(job.c.state == "receiving", _given_up()).limit(20)
    return list(connection.execute(query).scalars())


def mark_running(connection: Connection, job_ids: Sequence[UUID]) -> None:
    if not job_ids:
        return
    connection.execute(
        sa.update(job)
        .where(job.c.id.in_(job_ids), job.c.state == "queued")
        .values(state="running", started_at=sa.func.coalesce(job.c.started_at, sa.func.now()))
    )


def count_down(connection: Connection, done: Sequence[tuple[UUID, int, int]]) -> None:
    """Count finished chunks, each (job, rows succeeded, rows errored), and end the jobs that have none left."""
    totals: dict[UUID, list[int]] = {}
    for job_id, succeeded, errored in done:
        total = totals.setdefault(job_id, [0, 0, 0])
        for index, number in enumerate((succeeded, errored, 1)):
            total[index] += number
    ids = sorted(totals)  # one order for everybody, or two workers would deadlock
    if len(ids) > 1:
        # FOR NO KEY UPDATE: every finish that stored row errors holds a share of the job's key already, by their foreign key.
        lock = sa.select(job.c.id).where(job.c.id.in_(ids)).order_by(job.c.id).with_for_update(key_share=True)
        connection.execute(lock)
    rows = connection.execute(
        statement("count_down"),
        {
            "job_ids": [str(job_id) for job_id in ids],
            "succeeded": [totals[job_id][0] for job_id in ids],
            "errored": [totals[job_id][1] for job_id in ids],
            "chunks": [totals[job_id][2] for job_id in ids],
            "channel": CHANNEL,
        },
    ).all()
    usage.ended(connection, _counted([row for row in rows if row.state in TERMINAL]))


def cancel(connection: Connection, tenant: str, job_id: UUID) -> None:
    """End a job now: what is scored stays, what is queued or in a worker's hands is dropped (its finish is fenced).

    Raises:
        NotFound: no such job of this tenant.
        Conflict: the job is over, and not because it was canceled.
    """
    state = _state(connection, tenant, job_id)
    if state == "canceled":
        return
    if state in TERMINAL:
        raise Conflict(f"job {job_id} is over already ({state}); there is nothing left to cancel")
    dropped: list[int] = []
    # More than one pass, because a rescue that cuts a chunk in two may commit its second half while we wait for the first.
    while rows := _drop_open_chunks(connection, job_id):
        dropped += rows
    if not dropped:
        # The last chunk was finished while we waited for its lock; that transition counts, not ours.
        raise Conflict(f"job {job_id} is over already; there is nothing left to cancel")
    row = connection.execute(
        sa.update(job)
        .where(job.c.id == job_id)
        .values(
            state="canceled",
            rows_canceled=job.c.rows_canceled + sum(dropped),
            chunks_left=job.c.chunks_left - len(dropped),
            finished_at=sa.func.now(),
        )
        .returning(job.c.tenant, job.c.bytes_stored)
    ).one()
    _notify(connection, [job_id])
    usage.ended(connection, _counted([row]))


_SHOWN = tuple(column for column in job.c if column.name not in {"request_hash", "idempotency_key"})
_VISIBLE = job.c.state != "receiving"


def get(connection: Connection, tenant: str, job_id: UUID) -> sa.Row[Any]:
    """A job with the names of its model and version.

    Raises:
        NotFound: none of this tenant, or not complete yet.
    """
    found = several(connection, tenant, [job_id])
    if not found:
        raise NotFound(f"there is no job {job_id}")
    return found[job_id]


def several(connection: Connection, tenant: str, job_ids: Sequence[UUID]) -> dict[UUID, sa.Row[Any]]:
    """Those of some jobs that are this tenant's and complete, with the names of their models and versions."""
    rows = connection.execute(_some(), {"ids": list(job_ids), "tenant": tenant})
    return {row.id: row for row in rows}


def page(
    connection: Connection, tenant: str, *, state: str | None, model_name: str | None, after: UUID | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Jobs of a tenant, newest first, beginning after (older than) a job's id; those of deployments are not listed."""
    chosen = sa.select(*_SHOWN).where(job.c.tenant == tenant, _VISIBLE, job.c.endpoint != profiles.VALIDATION)
    if state is not None:
        chosen = chosen.where(job.c.state == state)
    if model_name is not None:
        chosen = chosen.where(job.c.version_id.in_(_versions(connection, tenant, model_name)))
    if after is not None:
        chosen = chosen.where(job.c.id < after)
    return connection.execute(_with_names(chosen.order_by(job.c.id.desc()).limit(limit))).all()


def queue_position(connection: Connection, row: sa.Row[Any], limit: int = 1000) -> int:
    """How many open jobs of the lane were submitted before this one, counted up to `limit`."""
    earlier = (
        sa.select(job.c.id)
        .where(job.c.lane == row.lane, job.c.id < row.id, job.c.state.in_(["queued", "running"]))
        .limit(limit)
    )
    return connection.execute(sa.select(sa.func.count()).select_from(earlier.subquery())).scalar_one()


def is_terminal(connection: Connection, tenant: str, job_id: UUID) -> bool:
    return _state(connection, tenant, job_id) in TERMINAL


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """A chunk's place in its job."""

    number: int
    first_row: int
    rows: int
    first_line: int
    state: str
    rows_errored: int

    @property
    def last_row(self) -> int:
        return self.first_row + self.rows - 1


def spans(connection: Connection, job_id: UUID) -> list[ChunkSpan]:
    """The chunks of a job in input order, without their payloads."""
    query = (
        sa.select(
            chunk.c.number, chunk.c.first_row, chunk.c.rows, chunk.c.first_line, chunk.c.state, chunk.c.rows_errored
        )
        .where(chunk.c.job_id == job_id)
        .order_by(chunk.c.first_row)
    )
    return [ChunkSpan(*row) for row in connection.execute(query)]


def payload(connection: Connection, job_id: UUID, number: int) -> bytes:
    """The packed input of one chunk.

    Raises:
        Gone: removed by retention, alone or with its job.
    """
    value = connection.execute(
        sa.select(chunk.c.payload).where(chunk.c.job_id == job_id, chunk.c.number == number)
    ).scalar_one_or_none()
    if not value:
        raise Gone(f"the inputs of job {job_id} were removed by retention")
    return bytes(value)


def check_inputs(row: sa.Row[Any]) -> None:
    """Raises Gone if retention took the inputs of a job."""
    if row.inputs_removed_at is not None:
        day = row.inputs_removed_at.date().isoformat()
        raise Gone(
            f"the inputs of job {row.id} were removed by retention on {day}; its results and row errors are there"
        )


def by_id(connection: Connection, job_id: UUID) -> sa.Row[Any] | None:
    """A visible job of any tenant; for callers that know that it is theirs."""
    return connection.execute(sa.select(job).where(job.c.id == job_id, _VISIBLE)).one_or_none()


def chunk_of_row(connection: Connection, job_id: UUID, row: int) -> Any | None:
    """The chunk (first_row, payload) that holds a row; None when retention took its input."""
    found = connection.execute(
        sa.select(chunk.c.first_row, chunk.c.payload)
        .where(chunk.c.job_id == job_id, chunk.c.first_row <= row)
        .order_by(chunk.c.first_row.desc())
        .limit(1)
    ).one_or_none()
    return None if found is None or not found.payload else found


@cache
def _some() -> sa.Select[Any]:
    """Made once: to put it together takes longer than Postgres needs for it."""
    ids = sa.bindparam("ids", type_=ARRAY(sa.UUID()))
    return _with_names(
        sa.select(*_SHOWN).where(job.c.id == sa.any_(ids), job.c.tenant == sa.bindparam("tenant"), _VISIBLE)
    )


def _with_names(jobs: sa.Select[Any]) -> sa.Select[Any]:
    """Some jobs with the names of their models and versions, the newest first.

    They are chosen from the jobs alone, and joined afterwards: of a join under row-level security the planner expects few
    rows, and among some tens of thousands of jobs it would read and sort all of them for a page.
    """
    chosen = jobs.subquery()
    return (
        sa.select(
            chosen,
            model.c.name.label("model"),
            model_version.c.version.label("model_version"),
            model_version.c.digest,
            sa.func.now().label("now"),
        )
        .select_from(chosen)
        .join(model_version, model_version.c.id == chosen.c.version_id)
        .join(model, model.c.id == model_version.c.model_id)
        .order_by(chosen.c.id.desc())
    )


def _versions(connection: Connection, tenant: str, model_name: str) -> list[int]:
    """By their ids, and not by a join, the planner knows how many jobs they have."""
    query = (
        sa.select(model_version.c.id)
        .join(model, model.c.id == model_version.c.model_id)
        .where(model.c.tenant == tenant, model.c.name == model_name)
    )
    return list(connection.execute(query).scalars())


def _state(connection: Connection, tenant: str, job_id: UUID) -> str:
    state = connection.execute(
        sa.select(job.c.state).where(job.c.id == job_id, job.c.tenant == tenant, _VISIBLE)
    ).scalar_one_or_none()
    if state is None:
        raise NotFound(f"there is no job {job_id}")
    return str(state)


def _drop_open_chunks(connection: Connection, job_id: UUID) -> list[int]:
    query = (
        sa.update(chunk)
        .where(chunk.c.job_id == job_id, chunk.c.state.in_(["queued", "running"]))
        .values(state="canceled", epoch=chunk.c.epoch + 1, lease_until=None, finished_at=sa.func.now())
        .returning(chunk.c.rows)
    )
    return list(connection.execute(query).scalars())


def _counted(rows: Sequence[sa.Row[Any]]) -> Counter[str]:
    """How many of these jobs (tenant, bytes_stored) count against the quota of which tenant."""
    return Counter(row.tenant for row in rows if row.bytes_stored is not None)


def _notify(connection: Connection, job_ids: Sequence[UUID]) -> None:
    if job_ids:
        connection.execute(
            sa.text("SELECT pg_notify(:channel, id) FROM unnest(CAST(:ids AS text[])) AS id"),
            {"channel": CHANNEL, "ids": [str(job_id) for job_id in job_ids]},
        )


def _given_up() -> sa.ColumnElement[bool]:
    """Some time after the lease, so that a seal which began within it has committed."""
    return job.c.upload_lease_until < sa.func.now() - sa.text("interval '5 seconds'")


def _in_seconds(seconds: float) -> sa.ColumnElement[Any]:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
