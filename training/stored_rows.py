"""The labelled rows of a model: its reference, and what was scored and came true since, as it was stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine

from db import samples
from db.engine import transaction
from errors import InvalidPackage
from records.payload import unpack
from registry import cells
from registry.parse import Parsed, parse_chunk
from registry.reference import parse_reference, read_reference
from registry.signature import Signature
from training.rows import Rows, joined
from training.target import Target

_CHUNKS_AT_ONCE = 500
_MOST_CHUNKS = 200_000
_MAX_CHUNK_BYTES = 1 << 30
_MAX_CELL_CHARS = 10_000_000  # what is stored was accepted before


@dataclass(frozen=True)
class Stored:
    """Labelled rows that were scored, by the time that they stand for, oldest first.

    Attributes:
        rows: n of them; each record key only once, with its latest inputs.
        received: (n,) microseconds since 1970 when their jobs were submitted.
        unknown: labels that name no class of the target (or no number), which were left out.
        repeated: rows that were left out because their record was scored again later.
    """

    rows: Rows
    received: npt.NDArray[np.int64]
    unknown: int
    repeated: int


@dataclass(frozen=True)
class _Piece:
    rows: Rows
    received: int


def stored_rows(
    engine: Engine,
    model_id: int,
    version_ids: Sequence[int],
    signature: Signature,
    target: Target,
    *,
    max_rows: int,
    max_age_days: int,
) -> Stored:
    """The latest labelled rows that any of the versions scored, at most `max_rows` of them.

    Their inputs are read by `signature`, that of the version whose successor is to be trained. Rows that it refuses, which
    another version may have scored, are left out.
    """
    with transaction(engine) as connection:
        chunks = samples.labelled_chunks(connection, version_ids, max_age_days=max_age_days, limit=_MOST_CHUNKS)
    pieces: list[_Piece] = []
    seen: set[str] = set()
    found = unknown = repeated = 0
    for first in range(0, len(chunks), _CHUNKS_AT_ONCE):
        for piece in _pieces(engine, model_id, chunks[first : first + _CHUNKS_AT_ONCE], signature):
            known = _known(piece.rows, target)
            fresh = _fresh(known, seen)
            unknown += len(piece.rows) - len(known)
            repeated += len(known) - len(fresh)
            found += len(fresh)
            pieces.append(_Piece(fresh, piece.received))
        if found >= max_rows:
            break
    pieces.reverse()  # they came newest first
    rows = joined([piece.rows for piece in pieces]) if pieces else nothing(signature)
    received = np.repeat(
        np.array([piece.received for piece in pieces], np.int64), [len(piece.rows) for piece in pieces]
    )
    assert rows.times is not None, "each stored row has a time"
    latest = np.sort(np.argsort(-rows.times, kind="stable")[:max_rows])
    order = latest[np.argsort(rows.times[latest], kind="stable")]
    return Stored(rows.take(order), received[order], unknown, repeated)


def reference_rows(path: Path, signature: Signature, target: Target) -> Rows:
    """The labelled rows of a reference; none if it has no target."""
    sample = read_reference(path)
    if target.name not in sample.header:
        return nothing(signature)
    parsed = parse_reference(sample, signature)
    if parsed.errors:
        raise InvalidPackage(f"the reference has rows that the version refuses: {parsed.errors[0].message}")
    labels = pc.utf8_trim(sample.columns[target.name], " \t")
    keys = sample.columns[signature.key] if signature.key in sample.header else None
    rows = Rows(signature, parsed.features, labels, keys, None)
    return _known(rows, target)


def nothing(signature: Signature) -> Rows:
    """No rows at all."""
    empty = {column.name: cells.from_texts(column, pa.array([], pa.string()), 1)[0] for column in signature.columns}
    return Rows(signature, pa.table(empty), pa.array([], pa.string()), pa.array([], pa.string()), np.empty(0, np.int64))


def _pieces(engine: Engine, model_id: int, chunks: Sequence[Any], signature: Signature) -> Iterator[_Piece]:
    """The labelled rows of chunks, newest first; only the inputs of chunks that have some are read."""
    with transaction(engine) as connection:
        labelled = samples.labelled_rows(connection, model_id, chunks)
    by_chunk = {name: list(rows) for name, rows in groupby(labelled, lambda row: (row.job_id, row.number))}
    for chunk in chunks:
        rows = by_chunk.get((chunk.job_id, chunk.number))
        if rows is None:
            continue
        with transaction(engine) as connection:
            stored = samples.inputs(connection, chunk.job_id, chunk.number)
        parsed = None if stored is None else _parsed(stored, signature)
        if parsed is not None:
            yield _Piece(_matched(parsed, rows, signature, _microseconds(chunk.at)), _microseconds(chunk.received))


def _parsed(stored: Any, signature: Signature) -> Parsed | None:
    """None of a job of another version, whose file lacks a column."""
    if stored.format == "csv" and not set(signature.names) <= set(stored.columns):
        return None
    return parse_chunk(
        unpack(bytes(stored.payload), _MAX_CHUNK_BYTES),
        format=stored.format,
        columns=list(stored.columns),
        delimiter=stored.delimiter,
        signature=signature,
        first_row=stored.first_row,
        max_cell_chars=_MAX_CELL_CHARS,
    )


def _matched(parsed: Parsed, labelled: Sequence[Any], signature: Signature, at: int) -> Rows:
    numbers = np.array([row.row for row in labelled], np.int64)
    _, of_parsed, of_labelled = np.intersect1d(parsed.rows, numbers, assume_unique=True, return_indices=True)
    chosen = [labelled[place] for place in of_labelled.tolist()]
    return Rows(
        signature,
        parsed.features.take(pa.array(of_parsed)),
        pc.utf8_trim(pa.array([row.label for row in chosen], pa.string()), " \t"),
        pa.array([row.record_key for row in chosen], pa.string()),
        np.full(len(chosen), at, np.int64),
    )


def _known(rows: Rows, target: Target) -> Rows:
    return rows.take(np.flatnonzero(target.knows(rows.labels)))


def _fresh(rows: Rows, seen: set[str]) -> Rows:
    """Without the records that were seen before, that is later, and the last one of each within these rows."""
    keep: list[int] = []
    keys = rows.keys.to_pylist() if rows.keys is not None else [None] * len(rows)
    for place in reversed(range(len(rows))):
        key = keys[place]
        if key is None or key not in seen:
            keep.append(place)
        if key is not None:
            seen.add(key)
    return rows.take(np.array(keep[::-1], np.int64))


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
