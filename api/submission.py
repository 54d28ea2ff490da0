"""Submissions as JSON: one record or many in the body, stored in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from api.context import Context
from api.schemas import JobRequest
from api.tokens import Caller
from db import chunks, jobs, models, usage
from db.engine import contended_transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.models import Pinned
from errors import Conflict, InvalidInput, OverQuota, Problem, ScorehouseError, TooLarge
from records.piece import Piece, rows_in_time
from registry.signature import Signature

# Records per chunk of a JSON job: a fraction of a second of work for most models.
_RECORDS_PER_CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Submission:
    """What a caller wants to have scored, under the id that its job gets if its idempotency key is new."""

    job_id: UUID
    created_by: str
    request: JobRequest
    idempotency_key: str | None
    endpoint: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.request.inputs if isinstance(self.request.inputs, list) else [self.request.inputs]


def submit_records(
    context: Context,
    caller: Caller,
    request: JobRequest,
    idempotency_key: str | None,
    *,
    endpoint: str = "jobs",
    job_id: UUID | None = None,
) -> UUID:
    """Store a job of one record or many, and ask for a permit; returns the job's id.

    Few records are stored together with those of other requests that come at the same time.

    Args:
        job_id: of a new job; an earlier submission with the same idempotency key has another.

    Raises:
        NotFound, Conflict: no such model or version, or none in production.
        InvalidInput: columns that are missing, an idempotency key that was used for another request.
        TooLarge: too many records, or one that is too long.
        OverQuota: more than the tenant has left.
    """
    wanted = Submission(job_id or uuid7(), caller.subject, request, idempotency_key, endpoint)
    count = len(wanted.records)
    if count > context.settings.max_json_records:
        raise TooLarge(
            f"{count:,} records in one JSON body, at most {context.settings.max_json_records:,} are taken; "
            "upload them as CSV or NDJSON"
        )

    def store(submissions: Sequence[Submission]) -> list[UUID | ScorehouseError]:
        return _store_all(context, caller.tenant, submissions)

    if count <= context.settings.interactive_rows:
        outcome = context.submissions.do(caller.tenant, wanted, store)
    else:
        (outcome,) = store([wanted])
    if isinstance(outcome, ScorehouseError):
        raise outcome
    return outcome


def same_submission(connection: Connection, tenant: str, key: str, request_hash: bytes) -> UUID | None:
    """The job that an idempotency key stands for, if the request is the same; None if the key is free (again).

    Raises:
        Conflict: the first submission is still in flight.
        InvalidInput: the key was used for another request.
    """
    earlier = jobs.by_idempotency_key(connection, tenant, key)
    if earlier is None:
        return None
    if earlier.state == "receiving":
        if earlier.abandoned:
            jobs.discard(connection, earlier.id)
            return None
        raise in_flight(key)
    if earlier.request_hash != request_hash:
        problem = Problem(
            "was used for another request; take a new key for a new submission", "#/header/Idempotency-Key"
        )
        raise InvalidInput(f"Idempotency-Key {key!r} {problem.detail}", [problem])
    return earlier.id


def in_flight(key: str) -> Conflict:
    return Conflict(f"a submission with Idempotency-Key {key!r} is still in flight; try again shortly", retry_after=1)


def _store_all(context: Context, tenant: str, submissions: Sequence[Submission]) -> list[UUID | ScorehouseError]:
    """For each the id of its job, or why it is refused.

    Raises:
        Unavailable: whether they were stored is unknown.
    """
    try:
        # For the usage of the tenant. Workers may begin before it is durable: what they store comes after it in the log.
        with contended_transaction(context.engine, lambda: _ask_for_permits(context, submissions)) as connection:
            return _stored(context, connection, tenant, submissions)
    except OverQuota as exc:
        if len(submissions) == 1:
            return [exc]
        # Nothing was stored; each by itself finds out whether there is room for it.
        return [outcome for one in submissions for outcome in _store_all(context, tenant, [one])]


def _ask_for_permits(context: Context, submissions: Sequence[Submission]) -> None:
    counts = [len(one.records) for one in submissions]
    if min(counts) <= context.settings.interactive_rows:
        context.publisher.want("interactive")
    if max(counts) > context.settings.interactive_rows:
        context.publisher.want("bulk", _chunk_count(max(counts)))


def _stored(
    context: Context, connection: Connection, tenant: str, submissions: Sequence[Submission]
) -> list[UUID | ScorehouseError]:
    outcomes: dict[UUID, UUID | ScorehouseError] = {}
    versions = _Versions(context, connection, tenant)
    accepted = []
    for one in submissions:
        try:
            accepted.append(_job_of(context, versions, tenant, one))
        except ScorehouseError as exc:
            outcomes[one.job_id] = exc
    # In the order of their keys: two processes that have the same ones then wait for each other only one way.
    waiting = sorted(accepted, key=lambda job: job[0].idempotency_key or "")
    taken: list[tuple[list[Piece], int]] = []
    while waiting:
        stored = chunks.submit(connection, tenant, waiting)
        refused = []
        for new, pieces in waiting:
            if new.id in stored:
                outcomes[new.id] = new.id
                taken.append((pieces, stored[new.id]))
            elif (earlier := _earlier(connection, new)) is None:
                refused.append((new, pieces))
            else:
                outcomes[new.id] = earlier
        waiting = refused
    if taken:
        usage.take(
            connection,
            tenant,
            context.limits.of(tenant),
            jobs=sum(1 for pieces, _ in taken if pieces),
            rows=sum(piece.rows for pieces, _ in taken for piece in pieces),
            bytes=sum(size for _, size in taken),
        )
    return [outcomes[one.job_id] for one in submissions]


def _earlier(connection: Connection, new: NewJob) -> UUID | ScorehouseError | None:
    """What has the idempotency key of a job that was not accepted; None if it is free again."""
    assert new.idempotency_key is not None
    assert new.request_hash is not None
    try:
        return same_submission(connection, new.tenant, new.idempotency_key, new.request_hash)
    except (Conflict, InvalidInput) as exc:
        return exc


class _Versions:
    """The versions that submissions are pinned to in one transaction, each looked up once."""

    def __init__(self, context: Context, connection: Connection, tenant: str) -> None:
        self._context, self._connection, self._tenant = context, connection, tenant
        self._known: dict[tuple[str, str | None], Pinned] = {}

    def of(self, request: JobRequest) -> tuple[Pinned, Signature]:
        """Raises as `models.pinned`."""
        name = (request.model, request.version)
        if name not in self._known:
            self._known[name] = models.pinned(self._connection, self._tenant, *name)
        version = self._known[name]
        return version, self._context.signatures.of(self._connection, version.id)


def _job_of(context: Context, versions: _Versions, tenant: str, wanted: Submission) -> tuple[NewJob, list[Piece]]:
    """Raises as `submit_records`."""
    request, records = wanted.request, wanted.records
    version, signature = versions.of(request)
    _check_columns(signature, request.inputs)
    key_column, keyed = _with_keys(records, request, signature)
    lines = _lines(keyed, context.settings.max_record_bytes)
    columns = list(dict.fromkeys(name for record in keyed for name in record))
    if len(columns) > context.settings.max_columns:
        raise InvalidInput(
            f"the records have {len(columns):,} different members, more than the {context.settings.max_columns:,} "
            "columns allowed; leave out those that the model does not use"
        )
    new = NewJob(
        id=wanted.job_id,
        tenant=tenant,
        version_id=version.id,
        kind="batch" if isinstance(request.inputs, list) else "single",
        lane="interactive" if len(lines) <= context.settings.interactive_rows else "bulk",
        format="ndjson",
        columns=columns,
        created_by=wanted.created_by,
        key_column=key_column,
        priority=request.priority,
        metadata=request.metadata,
        idempotency_key=wanted.idempotency_key,
        request_hash=_hash(request) if wanted.idempotency_key is not None else None,
        as_of=request.as_of,
        endpoint=wanted.endpoint,
    )
    step = min(rows_in_time(context.settings, version.seconds_per_row) or _RECORDS_PER_CHUNK, _RECORDS_PER_CHUNK)
    blocks = [(first + 1, lines[first : first + step]) for first in range(0, len(lines), step)]
    return new, [Piece(first, len(block), first, b"".join(block)) for first, block in blocks]


def _check_columns(signature: Signature, inputs: dict[str, Any] | list[dict[str, Any]]) -> None:
    if isinstance(inputs, dict):
        signature.check_record(inputs)
    elif inputs:
        # A column that only some records lack costs row errors; one that all lack is a mistake in the request.
        signature.check_columns(list(dict.fromkeys(name for record in inputs for name in record)))


def _with_keys(
    records: Sequence[dict[str, Any]], request: JobRequest, signature: Signature
) -> tuple[str | None, list[dict[str, Any]]]:
    """The key column, and the records with the caller's keys as one more member where they came apart."""
    keys = [request.key] if request.key is not None else request.keys
    if keys is None:
        named = request.key_column
        if named is None and signature.key is not None and any(signature.key in record for record in records):
            named = signature.key
        elif named is not None and not any(named in record for record in records):
            raise InvalidInput(f"no record has the key column {named!r}", [Problem("is in no record", "#/key_column")])
        # A record without its key still scores: it has no key then.
        return named, [record if named is None or named in record else {**record, named: None} for record in records]
    taken = {name for record in records for name in record}
    column = next(name for name in ("key", "record_key", "_record_key", "__record_key") if name not in taken)
    return column, [{**record, column: key} for record, key in zip(records, keys, strict=True)]


def _lines(records: Sequence[Mapping[str, Any]], max_record_bytes: int) -> list[bytes]:
    lines = []
    for index, record in enumerate(records):
        try:
            line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except UnicodeEncodeError as exc:
            raise InvalidInput(
                f"record {index + 1} has text that is not valid Unicode (a lone surrogate)",
                [Problem("text that is not valid Unicode", f"#/inputs/{index}")],
            ) from exc
        if len(line) > max_record_bytes:
            raise TooLarge(f"record {index + 1} is longer than the {max_record_bytes:,} bytes allowed")
        lines.append(line)
    return lines


def _chunk_count(rows: int) -> int:
    return -(-rows // _RECORDS_PER_CHUNK)


def _hash(request: JobRequest) -> bytes:
    return hashlib.blake2b(request.model_dump_json().encode("utf-8", "surrogatepass"), digest_size=32).digest()
