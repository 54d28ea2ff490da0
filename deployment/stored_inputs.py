"""The inputs that a model was sent last, piece by piece, the newest chunks first.

A place says how far somebody has come, so that another worker can go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db import samples
from records.boundaries import Boundaries, csv_boundaries, ndjson_boundaries
from records.payload import unpack
from registry.parse import Parsed, parse_chunk
from registry.signature import Signature

_MAX_CHUNK_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """After the first `rows` rows of a chunk."""

    job_id: UUID
    number: int
    rows: int

    def as_json(self) -> list[Any]:
        return [str(self.job_id), self.number, self.rows]

    @classmethod
    def from_json(cls, value: list[Any] | None) -> Place | None:
        return None if value is None else cls(UUID(value[0]), int(value[1]), int(value[2]))


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole records of one layout, and the place after them."""

    format: str
    columns: list[str]
    delimiter: str
    data: bytes
    rows: int
    place: Place

    def parsed(self, signature: Signature, max_cell_chars: int) -> Parsed:
        """As `registry.parse` gives it, rows from 1.

        Raises:
            InvalidInput: a file lacks a column of the signature.
        """
        return parse_chunk(
            self.data,
            format=self.format,
            columns=self.columns,
            delimiter=self.delimiter,
            signature=signature,
            max_cell_chars=max_cell_chars,
        )


def next_piece(connection: Connection, version_ids: Sequence[int], after: Place | None, rows: int) -> Piece | None:
    """The next `rows` rows at most of what was sent for any of these versions; None when there are no more."""
    until = None if after is None else (after.job_id, after.number)
    skipped = 0 if after is None else after.rows
    chunks = samples.last_chunks(connection, version_ids, until=until, rows=rows + skipped)
    if chunks and until == (chunks[0].job_id, chunks[0].number):
        if chunks[0].rows > skipped:
            return _piece(chunks[0], skipped, rows)
        chunks = chunks[1:]
    if not chunks:
        return None
    if chunks[0].format == "csv" or chunks[0].rows > rows:
        return _piece(chunks[0], 0, rows)
    return _joined(chunks, rows)


def _piece(chunk: Any, skipped: int, rows: int) -> Piece:
    """Some rows of one chunk."""
    data = unpack(bytes(chunk.payload), _MAX_CHUNK_BYTES)
    found = _boundaries(chunk, data)
    end = min(skipped + rows, len(found.starts))
    part = data[found.starts[skipped] : found.ends[end - 1]] if end > skipped else b""
    # A chunk that holds fewer records than it says has none left.
    reached = end if end < len(found.starts) else chunk.rows
    place = Place(chunk.job_id, chunk.number, reached)
    return Piece(chunk.format, chunk.columns, chunk.delimiter, part, max(end - skipped, 0), place)


def _joined(chunks: Sequence[Any], rows: int) -> Piece:
    """As many whole chunks of JSON as there is room for: singles are a chunk each."""
    blocks: list[bytes] = []
    taken = 0
    last = chunks[0]
    for chunk in chunks:
        if chunk.format == "csv" or taken + chunk.rows > rows:
            break
        block = unpack(bytes(chunk.payload), _MAX_CHUNK_BYTES)
        blocks.append(block if block.endswith(b"\n") else block + b"\n")
        taken, last = taken + chunk.rows, chunk
    place = Place(last.job_id, last.number, last.rows)
    return Piece("ndjson", [], ",", b"".join(blocks), taken, place)


def _boundaries(chunk: Any, data: bytes) -> Boundaries:
    if chunk.format == "csv":
        return csv_boundaries(data, chunk.delimiter, final=True)
    return ndjson_boundaries(data, final=True)
