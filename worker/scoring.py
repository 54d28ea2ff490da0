"""From claims to outcomes: unpack, parse, score, and put the predictions into the stream that COPY takes.

A bulk chunk is scored by itself; the interactive chunks of one version, up to some hundreds of singles, are scored in
one call of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from db import binary_copy
from db.binary_copy import Field
from db.chunks import Claim, Outcome
from records.payload import unpack
from records.row_error import RowError
from registry.parse import Parsed, parse_csv, parse_ndjson
from registry.scoring import Scored
from registry.scoring import score as score_rows
from registry.signature import Output
from settings import Settings
from worker.cache import Loaded

# A chunk is a few MiB, except where one record is a long one; this only bounds what a damaged payload may claim.
_MAX_CHUNK_BYTES = 1 << 30


@dataclass(frozen=True)
class ScoredClaims:
    """What `db.chunks.finish` takes."""

    outcomes: list[Outcome]
    predicted: bytes


def groups(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Claims that can share one call of the model."""
    ordered = sorted(claims, key=_shared)
    for _, group in groupby(ordered, key=_shared):
        yield list(group)


def score(claims: Sequence[Claim], loaded: Loaded, settings: Settings) -> ScoredClaims:
    """Score claims of one version, format and key column.

    Args:
        claims: one, or several of JSON records.
    """
    parsed = _parsed(claims, loaded, settings)
    scored = score_rows(loaded.runtime, parsed, loaded.signature)
    ends = np.cumsum([claim.rows for claim in claims])
    assert len(scored.rows) + len(scored.errors) == ends[-1], "each row ends as one prediction or one row error"
    owner = np.searchsorted(ends, scored.rows)  # which claim each scored row belongs to
    starts = ends - [claim.rows for claim in claims]
    succeeded = np.bincount(owner, minlength=len(claims))
    errors: list[list[RowError]] = [[] for _ in claims]
    for error in scored.errors:
        place = int(np.searchsorted(ends, error.row))
        errors[place].append(_in_job(error, claims[place], int(starts[place])))
    outcomes = [
        Outcome(claim, int(count), found) for claim, count, found in zip(claims, succeeded, errors, strict=True)
    ]
    offsets = np.array([claim.first_row for claim in claims]) - starts - 1
    return ScoredClaims(outcomes, _encoded(scored, claims, owner, scored.rows + offsets[owner], loaded))


def _shared(claim: Claim) -> tuple[Any, ...]:
    if claim.format == "ndjson":
        return (claim.version_id, claim.key_column or "", "", 0)
    return (claim.version_id, claim.key_column or "", str(claim.job_id), claim.number)


def _parsed(claims: Sequence[Claim], loaded: Loaded, settings: Settings) -> Parsed:
    """The rows of all claims, numbered from 1 across them."""
    first = claims[0]
    blocks = [unpack(claim.payload, _MAX_CHUNK_BYTES) for claim in claims]
    if first.format == "csv":
        return parse_csv(
            blocks[0],
            header=first.columns,
            delimiter=first.delimiter,
            signature=loaded.signature,
            key_column=first.key_column,
            first_row=1,
            first_line=first.first_line,
            max_cell_chars=settings.max_cell_chars,
        )
    return parse_ndjson(
        b"".join(block if block.endswith(b"\n") else block + b"\n" for block in blocks),
        signature=loaded.signature,
        key_column=first.key_column,
        first_row=1,
        first_line=first.first_line,
        max_cell_chars=settings.max_cell_chars,
    )


def _in_job(error: RowError, claim: Claim, start: int) -> RowError:
    """The error of a row that was numbered across claims, as the job numbers it."""
    row = claim.first_row + error.row - start - 1
    if start == 0:
        return replace(error, row=row)
    return replace(error, row=row, line=claim.first_line + error.row - start - 1)


def _encoded(scored: Scored, claims: Sequence[Claim], owner: Any, rows: Any, loaded: Loaded) -> bytes:
    """The fields of `db.predictions.COLUMNS`."""
    count = len(rows)
    output = loaded.signature.output
    assert output is not None, "only an examined version is loaded"
    probability, probabilities = _probabilities(scored, output, count)
    return binary_copy.encode(
        [
            binary_copy.uuids([claim.job_id for claim in claims], owner),
            binary_copy.integers(rows),
            binary_copy.integers(np.full(count, loaded.version.id)),
            binary_copy.nothing(count) if scored.keys is None else _texts(scored.keys),
            _texts(_labels(scored.prediction)),
            probability,
            probabilities,
        ]
    )


def _probabilities(scored: Scored, output: Output, count: int) -> tuple[Field, Field]:
    """(of the positive class, of all classes): a binary classifier has the first, others the second."""
    nothing = binary_copy.nothing(count)
    if scored.probabilities is None or output.classes is None:
        return nothing, nothing
    if output.positive is not None:
        return binary_copy.floats(scored.probabilities[:, output.classes.index(output.positive)]), nothing
    return nothing, binary_copy.float_arrays(scored.probabilities)


def _labels(prediction: Any) -> Any:
    """Labels as they are stored: numbers in their shortest exact spelling, booleans as true and false."""
    values = pa.array(prediction.tolist() if prediction.dtype == object else prediction)
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


def _texts(values: Any) -> Field:
    """An arrow string array."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    nulls = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    if nulls is not None:
        values = values.fill_null("")
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return binary_copy.texts(bounds, np.frombuffer(data or b"", np.uint8), nulls)
