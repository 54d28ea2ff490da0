"""From claims to outcomes: unpack, parse, score, and put the predictions, a block per claim, into the stream that COPY takes.

A bulk chunk is scored by itself; the interactive chunks of one version, up to some hundreds of singles, are scored in
one call of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from db import binary_copy
from db.binary_copy import Field
from db.chunks import Claim, Outcome
from db.predictions import FILTERED_FROM
from db.profiles import ChunkProfile
from monitoring.profile import Profile, profile_of
from records.key_filter import key_filter
from records.payload import unpack
from records.row_error import RowError
from registry.parse import Parsed, parse_chunk
from registry.scores import Scores
from registry.scoring import Scored
from registry.scoring import score as score_rows
from registry.signature import Output
from settings import Settings
from worker.cache import Loaded
from worker.recent import Recent

Probabilities = npt.NDArray[np.float64]

# A chunk is a few MiB, except where one record is a long one; this only bounds what a damaged payload may claim.
_MAX_CHUNK_BYTES = 1 << 30


@dataclass(frozen=True)
class ScoredClaims:
    """What `db.chunks.finish` takes."""

    outcomes: list[Outcome]
    predicted: bytes
    counted: list[ChunkProfile]


def groups(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Claims that can share one call of the model."""
    ordered = sorted(claims, key=_shared)
    for _, group in groupby(ordered, key=_shared):
        yield list(group)


def score(claims: Sequence[Claim], loaded: Loaded, settings: Settings, recent: Recent | None = None) -> ScoredClaims:
    """Score claims of one version, format and key column.

    Args:
        claims: one, or several of JSON records.
        recent: answers to single records, if they may be taken from there.
    """
    parsed = _parsed(claims, loaded, settings)
    runtime = loaded.runtime_of(claims[0].lane)
    # To look a row up takes longer than a compiled form takes to score it.
    if recent is not None and claims[0].lane == "interactive" and runtime is loaded.runtime:
        scored = recent.score(runtime, parsed, loaded.signature, loaded.version.digest)
    else:
        scored = score_rows(runtime, parsed, loaded.signature)
    ends = np.cumsum([claim.rows for claim in claims])
    assert len(scored.rows) + len(scored.errors) == ends[-1], "each row ends as one prediction or one row error"
    starts = ends - [claim.rows for claim in claims]
    bounds = [0, *np.searchsorted(scored.rows, ends, side="right").tolist()]
    succeeded = np.diff(bounds)
    errors: list[list[RowError]] = [[] for _ in claims]
    for error in scored.errors:
        place = int(np.searchsorted(ends, error.row))
        errors[place].append(_in_job(error, claims[place], int(starts[place])))
    outcomes = [
        Outcome(claim, int(count), found) for claim, count, found in zip(claims, succeeded, errors, strict=True)
    ]
    offsets = np.array([claim.first_row for claim in claims]) - starts - 1
    rows = scored.rows + np.repeat(offsets, succeeded)
    predicted = binary_copy.stream(_blocks(scored, claims, bounds, rows, loaded))
    return ScoredClaims(outcomes, predicted, _counted(outcomes, _profile(parsed, scored, loaded), loaded))


def _shared(claim: Claim) -> tuple[Any, ...]:
    when = "" if claim.as_of is None else claim.as_of.isoformat()
    if claim.format == "ndjson":
        return (claim.version_id, claim.key_column or "", when, "", 0)
    return (claim.version_id, claim.key_column or "", when, str(claim.job_id), claim.number)


def _parsed(claims: Sequence[Claim], loaded: Loaded, settings: Settings) -> Parsed:
    """The rows of all claims, numbered from 1 across them."""
    first = claims[0]
    blocks = [unpack(claim.payload, _MAX_CHUNK_BYTES) for claim in claims]
    if first.format == "csv":
        (data,) = blocks
    else:
        data = b"".join(block if block.endswith(b"\n") else block + b"\n" for block in blocks)
    return parse_chunk(
        data,
        format=first.format,
        columns=first.columns,
        delimiter=first.delimiter,
        signature=loaded.signature,
        key_column=first.key_column,
        first_line=first.first_line,
        max_cell_chars=settings.max_cell_chars,
    )


def _in_job(error: RowError, claim: Claim, start: int) -> RowError:
    """The error of a row that was numbered across claims, as the job numbers it."""
    row = claim.first_row + error.row - start - 1
    if start == 0:
        return replace(error, row=row)
    return replace(error, row=row, line=claim.first_line + error.row - start - 1)


def _profile(parsed: Parsed, scored: Scored, loaded: Loaded) -> Profile | None:
    """Of all rows of the call; None for a version that has no reference profile."""
    if loaded.schema is None:
        return None
    return profile_of(loaded.schema, parsed.features, Scores(scored.prediction, scored.probabilities), scored.errors)


def _counted(outcomes: Sequence[Outcome], profile: Profile | None, loaded: Loaded) -> list[ChunkProfile]:
    """What the claims add to the statistics: one entry per endpoint, the first of them with the profile of all rows."""
    found: list[ChunkProfile] = []
    for endpoint in dict.fromkeys(outcome.claim.endpoint for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.claim.endpoint == endpoint]
        errors = Counter(error.code for outcome in own for error in outcome.errors)
        with_profile = profile is not None and not found
        found.append(
            ChunkProfile(
                version_id=loaded.version.id,
                job_id=own[0].claim.job_id,
                as_of=own[0].claim.as_of,
                endpoint=endpoint,
                rows=sum(outcome.succeeded for outcome in own),
                errors=errors,
                seconds=[outcome.claim.seconds for outcome in own],
                schema_digest=loaded.schema.digest if with_profile and loaded.schema is not None else None,
                profile=profile.to_bytes() if with_profile and profile is not None else None,
            )
        )
    return found


def _blocks(
    scored: Scored, claims: Sequence[Claim], bounds: Sequence[int], rows: npt.NDArray[Any], loaded: Loaded
) -> Iterator[tuple[Field, ...]]:
    """The fields of `db.predictions.COLUMNS` of a block for each claim with a row that scored.

    Args:
        bounds: the rows of claim i are those from `bounds[i]` to `bounds[i + 1]` of all that scored.
        rows: their numbers in their jobs.
    """
    output = loaded.signature.output
    assert output is not None, "only an examined version is loaded"
    version_id = binary_copy.int4(loaded.version.id)
    keys = None if scored.keys is None else _Texts(scored.keys)
    labels = _Texts(_labels(scored.prediction))
    probability, probabilities = _probabilities(scored, output)
    for claim, start, end in zip(claims, bounds[:-1], bounds[1:], strict=True):
        if start == end:
            continue
        numbers = rows[start:end]
        in_a_row = numbers[0] == claim.first_row and numbers[-1] - numbers[0] == end - start - 1
        yield (
            claim.job_id.bytes,
            binary_copy.int4(claim.first_row),
            version_id,
            None if in_a_row else binary_copy.int_array(numbers),
            None if keys is None else keys.array(start, end),
            labels.array(start, end),
            None if probability is None else binary_copy.float_array(probability[start:end]),
            None if probabilities is None else binary_copy.float_array(probabilities[start:end].T.reshape(-1)),
            None if keys is None or end - start < FILTERED_FROM else keys.filter(start, end),
        )


def _probabilities(scored: Scored, output: Output) -> tuple[Probabilities | None, Probabilities | None]:
    """(of the positive class (n,), of all classes (n, k)): a binary classifier has the first, others the second."""
    if scored.probabilities is None or output.classes is None:
        return None, None
    if output.positive is not None:
        return scored.probabilities[:, output.classes.index(output.positive)], None
    return None, scored.probabilities


def _labels(prediction: Any) -> Any:
    """Labels as they are stored: numbers in their shortest exact spelling, booleans as true and false."""
    values = pa.array(prediction.tolist() if prediction.dtype == object else prediction)
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


class _Texts:
    """An arrow string array, taken apart."""

    def __init__(self, values: Any) -> None:
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        self._nulls = None
        if values.null_count:
            self._nulls = values.is_null().to_numpy(zero_copy_only=False)
            values = values.fill_null("")
        _, offsets, data = values.buffers()
        self._offsets = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
        self._data = np.frombuffer(data or b"", np.uint8)

    def array(self, start: int, end: int) -> bytes:
        """`text[]` of some of them."""
        nulls = None if self._nulls is None else self._nulls[start:end]
        return binary_copy.text_array(self._offsets[start : end + 1], self._data, nulls)

    def filter(self, start: int, end: int) -> bytes:
        """The key filter of some of them; a NULL goes in as an empty text, which harms nobody."""
        return key_filter(self._offsets[start : end + 1], self._data)
