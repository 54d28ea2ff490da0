"""Uploads of files: cut at record boundaries, packed and stored while they stream in, visible when they are complete.

Chunks can be claimed and scored as soon as they are stored; the job itself is seen by nobody before the end of the
upload, and an upload that fails or breaks off leaves nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import Connection

import logs
from api.bodies import longest_pause
from api.context import Context
from api.schemas import MetadataQuery, UploadQuery
from api.strict_json import parse_json
from api.submission import in_flight, same_submission
from api.tokens import Caller
from db import chunks, jobs, models, usage
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.models import Pinned
from db.quotas import Quotas
from errors import InvalidInput, Problem, ScorehouseError
from records.cutter import CsvCutter, Cutter, NdjsonCutter
from records.inflate import inflated
from records.piece import Limits, Piece
from registry.signature import Signature

_log = logs.get(__name__)

# A lease outlives the longest pause that a client may make, if it was not renewed with the block before.
_LEASE_MARGIN_SECONDS = 20
_RENEW_SECONDS = 10
_LONGEST_REST_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Upload:
    """What is known of an upload before its body."""

    format: str
    query: UploadQuery
    idempotency_key: str | None
    encoding: str | None


class Taken(ScorehouseError):
    """The idempotency key is taken: the rest of the body is only read to compare it."""


def receive(context: Context, caller: Caller, upload: Upload, body: Iterable[bytes]) -> UUID:
    """Store an upload as a job; returns the job's id.

    Args:
        body: the blocks of the file as they arrive; an exception while iterating means that the client is gone.

    Raises:
        NotFound, Conflict, InvalidInput, TooLarge, OverQuota, UnsupportedMedia, Unavailable: nothing of the upload is
            left then.
    """
    if upload.query.model is None:
        raise InvalidInput("name the model: ?model=NAME", [Problem("is required", "#/query/model")])
    with transaction(context.engine) as connection:
        version = models.pinned(connection, caller.tenant, upload.query.model, upload.query.version)
        signature = context.signatures.of(connection, version.id)
    settings = context.settings
    blocks = inflated(
        body, encoding=upload.encoding, max_bytes=settings.max_upload_bytes, max_inflation=settings.max_inflation
    )
    digest = hashlib.blake2b(_parameters(upload, version), digest_size=32) if upload.idempotency_key else None
    reception = _Reception(context, caller, upload, version, signature)
    try:
        for block in blocks:
            if digest is not None:
                digest.update(block)
            reception.feed(block)
        return reception.complete(digest.digest() if digest is not None else None)
    except Taken:
        assert digest is not None
        for block in blocks:
            digest.update(block)
        return reception.earlier(digest.digest())
    except BaseException:
        reception.discard()
        raise


class _Reception:
    """One upload in progress."""

    def __init__(self, context: Context, caller: Caller, upload: Upload, version: Pinned, signature: Signature) -> None:
        self._context = context
        self._caller = caller
        self._upload = upload
        self._version = version
        self._signature = signature
        self._cutter = _cutter(upload, Limits.of(context.settings, version.seconds_per_row))
        self._job: NewJob | None = None
        self._chunks = 0
        self._rows = 0
        self._renew_at = 0.0
        self._stored_at = time.monotonic()
        self._lease_seconds = round(longest_pause(context.settings)) + _LEASE_MARGIN_SECONDS
        # To which its rows count, however long it takes.
        self._day: date | None = None

    def feed(self, block: bytes) -> None:
        self._renew()
        for piece in self._cutter.feed(block):
            self._store(piece)
        if self._job is None and self._cutter.columns is not None:
            self._open(self._cutter.columns)

    def complete(self, request_hash: bytes | None) -> UUID:
        """Store the rest and make the job visible."""
        for piece in self._cutter.finish():
            self._store(piece)
        if self._job is None:
            assert self._cutter.columns is not None  # else finish() has raised
            self._open(self._cutter.columns)
        assert self._job is not None
        with transaction(self._context.engine) as connection:
            jobs.seal(connection, self._job.id, rows=self._rows, chunks=self._chunks, request_hash=request_hash)
        return self._job.id

    def earlier(self, request_hash: bytes) -> UUID:
        """The job of the same submission."""
        assert self._upload.idempotency_key is not None
        with transaction(self._context.engine) as connection:
            found = same_submission(connection, self._caller.tenant, self._upload.idempotency_key, request_hash)
        if found is None:
            raise InvalidInput("the earlier submission with this Idempotency-Key failed just now; send this one again")
        return found

    def discard(self) -> None:
        """Leave nothing behind. If the database is away too, the sweeper does it when the lease is over."""
        if self._job is None:
            return
        try:
            with transaction(self._context.engine) as connection:
                jobs.discard(connection, self._job.id)
        except ScorehouseError as exc:
            _log.warning("discard_postponed", job=str(self._job.id), reason=str(exc))

    def _open(self, columns: list[str]) -> None:
        """The columns are known: check them, and insert the job that the chunks belong to."""
        self._signature.check_columns(columns)
        query = self._upload.query
        new = NewJob(
            id=uuid7(),
            tenant=self._caller.tenant,
            version_id=self._version.id,
            kind="batch",
            lane="bulk",
            format=self._upload.format,
            columns=columns,
            created_by=self._caller.subject,
            delimiter=_delimiter(query) if self._upload.format == "csv" else ",",
            key_column=_key_column(query, self._signature, columns),
            priority=query.priority,
            metadata=_metadata(query),
            idempotency_key=self._upload.idempotency_key,
            as_of=query.as_of,
        )
        self._renew_at = time.monotonic() + _RENEW_SECONDS
        with transaction(self._context.engine) as connection:
            if not jobs.receive(connection, new, lease_seconds=self._lease_seconds) and not self._take_over(
                connection, new
            ):
                raise Taken
            self._day = usage.take(connection, new.tenant, self._limits(), jobs=1)
        self._job = new

    def _limits(self) -> Quotas:
        return self._context.limits.of(self._caller.tenant)

    def _take_over(self, connection: Connection, new: NewJob) -> bool:
        """Whether the key belonged to an upload that was abandoned, and is ours now."""
        assert new.idempotency_key is not None
        earlier = jobs.by_idempotency_key(connection, new.tenant, new.idempotency_key)
        if earlier is None or earlier.abandoned:
            if earlier is not None:
                jobs.discard(connection, earlier.id)
            return jobs.receive(connection, new, lease_seconds=self._lease_seconds)
        if earlier.state == "receiving":
            raise in_flight(new.idempotency_key)
        return False

    def _renew(self) -> None:
        """With each block and not with each chunk: from a slow client a chunk may take longer than the lease."""
        if self._job is None or time.monotonic() < self._renew_at:
            return
        with transaction(self._context.engine) as connection:
            jobs.renew_upload(connection, self._job.id, lease_seconds=self._lease_seconds)
        self._renew_at = time.monotonic() + _RENEW_SECONDS

    def _store(self, piece: Piece) -> None:
        if self._job is None:
            assert self._cutter.columns is not None
            self._open(self._cutter.columns)
        assert self._job is not None
        with transaction(self._context.engine) as connection:
            stored = chunks.add(connection, self._job, self._chunks, piece)
            job, limits = self._job, self._limits()
            usage.grow(connection, job.tenant, job.id, limits, rows=piece.rows, bytes=stored, day=self._day)
        self._chunks += 1
        self._rows += piece.rows
        self._context.publisher.want(self._job.lane, min(self._chunks, 4))
        self._give_way()

    def _give_way(self) -> None:
        """While somebody waits for records, rest for as long as the chunk has taken: the two share processors and a lock."""
        if self._context.completions.records_are_awaited:
            time.sleep(min(time.monotonic() - self._stored_at, _LONGEST_REST_SECONDS))
        self._stored_at = time.monotonic()


def _cutter(upload: Upload, limits: Limits) -> Cutter:
    if upload.format == "csv":
        return CsvCutter(_delimiter(upload.query), limits)
    return NdjsonCutter(limits)


def _delimiter(query: UploadQuery) -> str:
    return "\t" if query.delimiter in {"tab", "\\t"} else query.delimiter


def _key_column(query: UploadQuery, signature: Signature, columns: list[str]) -> str | None:
    if query.key_column is None:
        return signature.key if signature.key in columns else None
    if query.key_column not in columns:
        raise InvalidInput(
            f"the key column {query.key_column!r} is not in the file; its columns are: {', '.join(columns[:20])}",
            [Problem("is not a column of the file", "#/query/key_column")],
        )
    return query.key_column


def _metadata(query: UploadQuery) -> dict[str, str]:
    if query.metadata is None:
        return {}
    value = parse_json(query.metadata.encode("utf-8", "surrogatepass"))
    return MetadataQuery.model_validate({"metadata": value}).metadata


def _parameters(upload: Upload, version: Pinned) -> bytes:
    query = upload.query
    parts = (
        upload.format,
        version.model,
        query.version,
        query.key_column,
        _delimiter(query),
        query.priority,
        query.metadata,
        query.as_of,
    )
    return repr(parts).encode("utf-8", "surrogatepass")
