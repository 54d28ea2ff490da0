"""The chunk protocol: claim, finish, release and rescue, over `chunk` and the counters of `job`.

    claim    a short transaction of its own: queued -> running, epoch + 1, lease
    score    outside any transaction
    finish   one transaction, always chunk -> predictions -> job; an epoch that moved on undoes all of it
    rescue   a lease that is over, or an owner that is dead: epoch + 1, crashes + 1, queued again or cut in two

`docs/explanation/queue-of-record.md` says why this loses and duplicates nothing.
"""

from __future__ import annotations

import csv
import json
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

import logs
from db import binary_copy, jobs, predictions, profiles
from db.engine import at_once, copy, elevated, transaction
from db.jobs import NewJob
from db.profiles import ChunkProfile
from db.sql import statement
from db.tables import chunk, job
from errors import Fenced, Unavailable
from records.cutter import Piece
from records.payload import pack, unpack
from records.row_error import RowError
from records.split import halve

_log = logs.get(__name__)

_COPIED = ("job_id", "number", "tenant", "lane", "priority", "version_id", "first_row", "rows", "first_line", "payload")

# Chunks that an upload adds are numbered from 0; those that a rescue cuts off start here, out of the upload's way.
_FIRST_SPLIT_NUMBER = 1_000_000

# A worker sends the results of a chunk in a fraction of a second.
_FROZEN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A chunk in this worker's hands, until its lease is over."""

    job_id: UUID
    number: int
    epoch: int
    version_id: int
    first_row: int
    rows: int
    first_line: int
    payload: bytes
    crashes: int
    lane: str
    tenant: str
    format: str
    delimiter: str
    columns: list[str]
    key_column: str | None
    as_of: datetime | None
    endpoint: str
    # Seconds from the submission to the claim, and when that was by this process's monotonic clock.
    waited: float
    claimed: float

    @property
    def seconds(self) -> float:
        """Since the submission."""
        return self.waited + time.monotonic() - self.claimed

    @property
    def name(self) -> str:
        return f"{self.job_id}/{self.number}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one claimed chunk: how many rows scored, and the errors of the others."""

    claim: Claim
    succeeded: int
    errors: Sequence[RowError]


def claim(
    engine: Engine,
    *,
    lane: str,
    count: int,
    owner: str,
    lease_seconds: float,
    refused: Sequence[int] = (),
    suspects: bool = False,
) -> list[Claim]:
    """Claim up to `count` chunks of a lane, in the order of fairness; empty when nothing is claimable.

    Args:
        refused: ids of the versions that this worker cannot score; their chunks are left to others.
        suspects: claim chunks that crashed a worker before (and only those) instead of the others.
    """
    parameters = {
        "lane": lane,
        "count": count,
        "owner": owner,
        "lease_seconds": lease_seconds,
        "refused": list(refused),
        "suspects": suspects,
    }
    if lane == "bulk":
        with transaction(engine) as connection:
            rows: Sequence[sa.Row[Any]] = connection.execute(statement("claim"), parameters).all()
            jobs.mark_running(connection, sorted({row.job_id for row in rows if row.state == "queued"}))
    else:  # a single is done so soon that 'running' would be one more write for nobody
        rows = at_once(engine, statement("claim"), parameters)
    now = time.monotonic()
    claims = [
        Claim(
            job_id=row.job_id,
            number=row.number,
            epoch=row.epoch,
            version_id=row.version_id,
            first_row=row.first_row,
            rows=row.rows,
            first_line=row.first_line,
            payload=bytes(row.payload),
            crashes=row.crashes,
            lane=lane,
            tenant=row.tenant,
            format=row.format,
            delimiter=row.delimiter,
            columns=row.columns,
            key_column=row.key_column,
            as_of=row.as_of,
            endpoint=row.endpoint,
            waited=float(row.waited),
            claimed=now,
        )
        for row in rows
    ]
    return sorted(claims, key=lambda item: (item.job_id, item.number))


def finish(engine: Engine, outcomes: Sequence[Outcome], predicted: bytes, counted: Sequence[ChunkProfile] = ()) -> None:
    """Make the outcomes of some claims durable, all or none.

    Args:
        outcomes: of distinct chunks.
        predicted: the blocks of predictions, as `predictions.copy` takes them.
        counted: what they add to the statistics.

    Raises:
        Fenced: at least one of the claims was taken away; nothing was written.
        Unavailable: the database is out of reach and the outcome was not committed.
    """
    for attempt in (1, 2):
        try:
            with transaction(engine) as connection:
                _finish(connection, outcomes, predicted, counted)
        except Unavailable:
            # The COMMIT may or may not have happened. The epoch tells.
            if _is_done(engine, outcomes):
                return
            if attempt == 2:
                raise
        else:
            return


def release(engine: Engine, claims: Sequence[Claim]) -> None:
    """Give claims back without counting a crash: the database was away, or this worker cannot score the version."""
    with transaction(engine) as connection:
        for item in claims:
            connection.execute(_still_mine(item).values(state="queued", owner=None, lease_until=None))


def give_up(engine: Engine, claims: Sequence[Claim]) -> None:
    """End the leases of claims whose scoring failed in a way that nobody foresaw: the next rescue counts a crash."""
    with transaction(engine) as connection:
        for item in claims:
            connection.execute(_still_mine(item).values(lease_until=sa.func.now() - sa.text("interval '1 second'")))


def rescue(
    engine: Engine, *, poison_attempts: int, dead_owners: Sequence[str] = (), max_chunk_bytes: int = 1 << 30
) -> int:
    """Take back claims whose lease is over or whose owner is dead; returns how many.

    After its first crash a chunk is queued again. After the second it is cut in two, so that a row that kills its
    worker is cornered in log2(rows) steps while its neighbours score. A chunk of one row that crashed
    `poison_attempts` times becomes a row error.
    """
    with transaction(engine) as connection:
        rows = connection.execute(statement("rescue"), {"dead_owners": list(dead_owners)}).all()
        count = sum(_rescued(connection, row, poison_attempts, max_chunk_bytes) for row in rows)
        if count:
            profiles.count_event(connection, "chunk_rescues", count)
    _end_frozen(engine)
    return count


def claimable(engine: Engine, limit: int = 64) -> dict[str, int]:
    """How many chunks of each lane wait to be claimed, counted up to `limit`."""
    with transaction(engine) as connection:
        return {
            lane: connection.execute(
                sa.select(sa.func.count()).select_from(
                    sa.select(chunk.c.number)
                    .where(chunk.c.lane == lane, chunk.c.state == "queued", chunk.c.not_before <= sa.func.now())
                    .limit(limit)
                    .subquery()
                )
            ).scalar_one()
            for lane in ("interactive", "bulk")
        }


def waiting_longer_than(engine: Engine, lane: str, seconds: float, refused: Sequence[int]) -> bool:
    """Whether a chunk of a lane that this worker could score has waited so long."""
    query = sa.select(
        sa.exists().where(
            chunk.c.lane == lane,
            chunk.c.state == "queued",
            chunk.c.not_before < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds),
            chunk.c.version_id.not_in(refused),
        )
    )
    with transaction(engine) as connection:
        return bool(connection.execute(query).scalar_one())


def running_owners(engine: Engine, prefix: str) -> list[str]:
    """The owners of running chunks whose name begins with `prefix` (a host)."""
    with transaction(engine) as connection:
        query = (
            sa.select(chunk.c.owner)
            .distinct()
            .where(chunk.c.state == "running", chunk.c.owner.startswith(prefix, autoescape=True))
        )
        return [owner for owner in connection.execute(query).scalars() if owner is not None]


def submit(connection: Connection, tenant: str, wanted: Sequence[tuple[NewJob, Sequence[Piece]]]) -> dict[UUID, int]:
    """Store jobs of a tenant that are there as a whole, all in one statement.

    Returns the bytes of each job's input, as packed. A job whose idempotency key is taken, also by one before it, is missing
    there; `jobs.by_idempotency_key` tells by what.
    """
    described = []
    stored = {}
    columns: list[list[Any]] = [[] for _ in range(6)]
    for new, pieces in wanted:
        payloads = [pack(piece.data) for piece in pieces]
        stored[new.id] = sum(map(len, payloads))
        described.append(_described(new, pieces, stored[new.id]))
        for number, (piece, payload) in enumerate(zip(pieces, payloads, strict=True)):
            chunk_of = (str(new.id), number, piece.first_row, piece.rows, piece.first_line, payload)
            for column, value in zip(columns, chunk_of, strict=True):
                column.append(value)
    names = ("job_ids", "numbers", "first_rows", "rows", "first_lines", "payloads")
    parameters = {
        "tenant": tenant,
        "jobs": json.dumps(described, ensure_ascii=False),
        **dict(zip(names, columns, strict=True)),
    }
    accepted = connection.execute(statement("submit"), parameters).scalars()
    return {job_id: stored[job_id] for job_id in accepted}


def _described(new: NewJob, pieces: Sequence[Piece], stored: int) -> dict[str, Any]:
    """As the statement takes it."""
    return {
        "id": str(new.id),
        "version_id": new.version_id,
        "kind": new.kind,
        "lane": new.lane,
        "priority": jobs.PRIORITIES[new.priority],
        "format": new.format,
        "delimiter": new.delimiter,
        "columns": list(new.columns),
        "key_column": new.key_column,
        "metadata": new.metadata,
        "idempotency_key": new.idempotency_key,
        "request_hash": None if new.request_hash is None else f"\\x{new.request_hash.hex()}",
        "created_by": new.created_by,
        "as_of": None if new.as_of is None else new.as_of.isoformat(),
        "endpoint": new.endpoint,
        "rows": sum(piece.rows for piece in pieces),
        "chunks": len(pieces),
        "bytes": stored if new.counted else None,
    }


def add(connection: Connection, new: NewJob, number: int, piece: Piece) -> int:
    """Store a chunk's input, and return its bytes as packed. It can be claimed as soon as this is committed."""
    packed = pack(piece.data)
    # COPY and not INSERT: a statement would carry the payload as a literal, in hexadecimal, through the parser.
    fields = (
        new.id.bytes,
        binary_copy.int4(number),
        new.tenant.encode(),
        new.lane.encode(),
        struct.pack(">h", jobs.PRIORITIES[new.priority]),
        binary_copy.int4(new.version_id),
        binary_copy.int4(piece.first_row),
        binary_copy.int4(piece.rows),
        struct.pack(">q", piece.first_line),
        packed,
    )
    with elevated(connection):
        copy(connection, "chunk", _COPIED, binary_copy.stream([fields]))
    return len(packed)


def _finish(
    connection: Connection, outcomes: Sequence[Outcome], predicted: bytes, counted: Sequence[ChunkProfile]
) -> None:
    ordered = sorted(outcomes, key=lambda item: (item.claim.job_id, item.claim.number))
    done = connection.execute(
        statement("finish_chunks"),
        {
            "job_ids": [str(item.claim.job_id) for item in ordered],
            "numbers": [item.claim.number for item in ordered],
            "epochs": [item.claim.epoch for item in ordered],
            "errored": [len(item.errors) for item in ordered],
        },
    ).all()
    if len(done) != len(ordered):
        raise Fenced(f"{len(ordered) - len(done)} of {len(ordered)} claims were taken away; their scores are dropped")
    predictions.copy(connection, predicted)
    profiles.add(connection, counted)
    predictions.copy_errors(connection, [(item.claim.job_id, error) for item in ordered for error in item.errors])
    jobs.count_down(
        connection,
        [(item.claim.job_id, item.succeeded, len(item.errors)) for item in ordered],
    )


def _is_done(engine: Engine, outcomes: Sequence[Outcome]) -> bool:
    """Whether a finish whose COMMIT was not acknowledged happened.

    Raises:
        Fenced: no, and it cannot any more.
    """
    first = outcomes[0].claim
    with transaction(engine) as connection:
        row = connection.execute(
            sa.select(chunk.c.state, chunk.c.epoch).where(
                chunk.c.job_id == first.job_id, chunk.c.number == first.number
            )
        ).one_or_none()
    if row is None or row.epoch != first.epoch or row.state == "canceled":
        raise Fenced(f"chunk {first.name} was taken away")
    return bool(row.state == "done")


def _end_frozen(engine: Engine) -> None:
    """End the sessions that hold a chunk whose lease is over while the server waits for their next word.

    A worker that is frozen in the middle of a COPY holds its locks for ever: no timeout of the server acts while it reads a
    COPY, neither that of the statement nor that of the transaction, and the peer's kernel answers for the process. What this
    session held is rescued at the next tick.
    """
    with transaction(engine) as connection:
        pids = connection.execute(statement("holders_of_expired")).scalars().all()
        if not pids:
            return
        # Only as who logged in may it end a session of the same user.
        connection.execute(sa.text("SET LOCAL ROLE NONE"))
        parameters = {"pids": pids, "seconds": _FROZEN_SECONDS}
        ended = connection.execute(statement("end_frozen"), parameters).scalars().all()
    if ended:
        _log.warning("ended_frozen_sessions", pids=ended)


def _rescued(connection: Connection, row: sa.Row[Any], poison_attempts: int, max_bytes: int) -> bool:
    """Decide on one claim; False when that failed, which must not keep the others from being rescued."""
    crashes = row.crashes + 1
    try:
        with connection.begin_nested():
            if row.rows == 1 and crashes >= poison_attempts:
                _poison(connection, row, crashes, max_bytes)
            elif row.rows > 1 and crashes > 1:
                _cut_in_two(connection, row, max_bytes)
            else:
                _requeue(connection, row, crashes=crashes)
    except Exception as exc:  # of a damaged payload it may be anything; a lost connection is told of by the commit
        # The first line only: further ones of the database may hold a caller's data.
        _log.error("rescue_failed", chunk=f"{row.job_id}/{row.number}", reason=str(exc).partition("\n")[0])
        return False
    return True


def _requeue(connection: Connection, row: sa.Row[Any], *, crashes: int) -> None:
    connection.execute(
        _locked(row).values(state="queued", epoch=row.epoch + 1, crashes=crashes, owner=None, lease_until=None)
    )


def _cut_in_two(connection: Connection, row: sa.Row[Any], max_bytes: int) -> None:
    """Keep the first half in the chunk and put the second into a new one, both still under suspicion."""
    whole = Piece(row.first_row, row.rows, row.first_line, unpack(bytes(row.payload), max_bytes))
    first, second = halve(whole, row.format, row.delimiter)
    # The lock on the job keeps two rescues of one job from taking the same number.
    total = connection.execute(
        sa.update(job)
        .where(job.c.id == row.job_id)
        .values(chunks_left=job.c.chunks_left + 1, chunks_total=job.c.chunks_total + 1)
        .returning(job.c.chunks_total)
    ).scalar_one()
    suspect = {"state": "queued", "crashes": 1, "owner": None, "lease_until": None}
    connection.execute(
        sa.insert(chunk).from_select(
            [
                "job_id",
                "number",
                "tenant",
                "lane",
                "priority",
                "version_id",
                "first_row",
                "rows",
                "first_line",
                "payload",
                "crashes",
            ],
            sa.select(
                chunk.c.job_id,
                sa.literal(_FIRST_SPLIT_NUMBER + total),
                chunk.c.tenant,
                chunk.c.lane,
                chunk.c.priority,
                chunk.c.version_id,
                sa.literal(second.first_row),
                sa.literal(second.rows),
                sa.literal(second.first_line),
                sa.literal(pack(second.data), sa.LargeBinary),
                sa.literal(1),
            ).where(chunk.c.job_id == row.job_id, chunk.c.number == row.number),
        )
    )
    connection.execute(_locked(row).values(epoch=row.epoch + 1, rows=first.rows, payload=pack(first.data), **suspect))


def _poison(connection: Connection, row: sa.Row[Any], crashes: int, max_bytes: int) -> None:
    raw = unpack(bytes(row.payload), max_bytes).decode().rstrip("\r\n")
    error = RowError(
        row=row.first_row,
        line=row.first_line,
        key=_key(raw, row),
        column=None,
        code="worker_crash",
        message=f"scoring this row ended its worker {crashes} times (crash, memory or time limit); it was given up",
        raw=raw[:2000],
    )
    connection.execute(
        _locked(row).values(
            state="done",
            epoch=row.epoch + 1,
            crashes=crashes,
            rows_errored=1,
            finished_at=sa.func.now(),
            lease_until=None,
        )
    )
    predictions.copy_errors(connection, [(row.job_id, error)])
    counted = ChunkProfile(row.version_id, row.job_id, row.as_of, row.endpoint, 0, {error.code: 1}, [], None, None)
    profiles.add(connection, [counted])
    jobs.count_down(connection, [(row.job_id, 0, 1)])


def _still_mine(item: Claim) -> sa.Update:
    return sa.update(chunk).where(
        chunk.c.job_id == item.job_id,
        chunk.c.number == item.number,
        chunk.c.epoch == item.epoch,
        chunk.c.state == "running",
    )


def _locked(row: sa.Row[Any]) -> sa.Update:
    return sa.update(chunk).where(chunk.c.job_id == row.job_id, chunk.c.number == row.number)


def _key(raw: str, row: sa.Row[Any]) -> str | None:
    if row.key_column is None:
        return None
    try:
        if row.format == "csv":
            cells = next(csv.reader(raw.splitlines(keepends=True), delimiter=row.delimiter))
            return str(cells[row.columns.index(row.key_column)])
        value = json.loads(raw).get(row.key_column)
        return None if value is None else str(value)
    except (ValueError, IndexError, AttributeError):
        return None
