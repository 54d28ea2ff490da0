"""From claims to outcomes: unpack, parse, score, and write the predictions as the CSV that COPY takes.

A bulk chunk is scored by itself; the interactive chunks of one version, up to some hundreds of singles, are scored in
one call of the model.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

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
    prediction_csv: list[bytes]


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
    table = _table(scored, claims, owner, scored.rows + offsets[owner], loaded)
    return ScoredClaims(outcomes, [_csv(table)] if table.num_rows else [])


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


def _table(scored: Scored, claims: Sequence[Claim], owner: Any, rows: Any, loaded: Loaded) -> Any:
    """The columns of `db.predictions.COLUMNS`."""
    count = len(rows)
    ids = pa.array([str(claim.job_id) for claim in claims])
    output = loaded.signature.output
    assert output is not None, "only an examined version is loaded"
    probability, probabilities = _probabilities(scored, output, count)
    return pa.table(
        [
            pa.repeat(ids[0], count) if len(claims) == 1 else ids.take(pa.array(owner)),
            pa.array(rows),
            pa.repeat(pa.scalar(loaded.version.id), count),
            pa.nulls(count, pa.string()) if scored.keys is None else scored.keys,
            _texts(scored.prediction),
            probability,
            probabilities,
        ],
        names=["job_id", "row", "version_id", "record_key", "prediction", "probability", "probabilities"],
    )


def _probabilities(scored: Scored, output: Output, count: int) -> tuple[Any, Any]:
    """(of the positive class, of all classes): a binary classifier has the first, others the second."""
    nothing = pa.nulls(count, pa.float64()), pa.nulls(count, pa.string())
    if scored.probabilities is None or output.classes is None:
        return nothing
    if output.positive is not None:
        return pa.array(scored.probabilities[:, output.classes.index(output.positive)]), nothing[1]
    columns = [pa.array(column).cast(pa.string()) for column in scored.probabilities.T]
    joined = pc.binary_join_element_wise(*columns, ",")
    return nothing[0], pc.binary_join_element_wise("{", joined, "}", "")


def _texts(prediction: Any) -> Any:
    """Labels as they are stored: numbers in their shortest exact spelling, booleans as true and false."""
    values = pa.array(prediction.tolist() if prediction.dtype == object else prediction)
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


def _csv(table: Any) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getvalue()
