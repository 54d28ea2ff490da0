"""Submissions as JSON: one record or many in the body, stored in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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
from db.quotas import Quotas
from errors import Conflict, InvalidInput, Problem, TooLarge
from records.piece import Piece
from registry.signature import Signature

# Records per chunk of a JSON job: a fraction of a second of work for any model.
_RECORDS_PER_CHUNK = 2_000


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

    Args:
        job_id: of a new job; an earlier submission with the same idempotency key has another.

    Raises:
        NotFound, Conflict: no such model or version, or none in production.
        InvalidInput: columns that are missing, an idempotency key that was used for another request.
        TooLarge: too many records, or one that is too long.
        OverQuota: more than the tenant has left.
    """
    records = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    if len(records) > context.settings.max_json_records:
        raise TooLarge(
            f"{len(records):,} records in one JSON body, at most {context.settings.max_json_records:,} are taken; "
            "upload them as CSV or NDJSON"
        )
    with contended_transaction(context.engine) as connection:  # for the usage of the tenant
        version = models.pinned(connection, caller.tenant, request.model, request.version)
        signature = context.signatures.of(version.id, version.signature)
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
            id=job_id or uuid7(),
            tenant=caller.tenant,
            version_id=version.id,
            kind="batch" if isinstance(request.inputs, list) else "single",
            lane="interactive" if len(lines) <= context.settings.interactive_rows else "bulk",
            format="ndjson",
            columns=columns,
            created_by=caller.subject,
            key_column=key_column,
            priority=request.priority,
            metadata=request.metadata,
            idempotency_key=idempotency_key,
            request_hash=_hash(request) if idempotency_key is not None else None,
            as_of=request.as_of,
            endpoint=endpoint,
        )
        stored_id = _store(connection, new, lines, context.limits.of(caller.tenant))
    context.publisher.want(new.lane, 1 if new.lane == "interactive" else _chunk_count(len(lines)))
    return stored_id


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


def _store(connection: Connection, new: NewJob, lines: Sequence[bytes], limits: Quotas) -> UUID:
    pieces = []
    for first in range(0, len(lines), _RECORDS_PER_CHUNK):
        block = lines[first : first + _RECORDS_PER_CHUNK]
        pieces.append(Piece(first + 1, len(block), first + 1, b"".join(block)))
    while (stored := chunks.submit(connection, new, pieces)) is None:
        assert new.idempotency_key is not None
        assert new.request_hash is not None
        earlier = same_submission(connection, new.tenant, new.idempotency_key, new.request_hash)
        if earlier is not None:
            return earlier
    usage.take(connection, new.tenant, limits, jobs=1 if pieces else 0, rows=len(lines), bytes=stored)
    return new.id


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
