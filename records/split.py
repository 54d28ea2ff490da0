"""The records of a stored chunk, one by one: their own text and lines, some of them, or the chunk in two.

Records are counted from 0 here, within the chunk; a row number is the chunk's first row plus that index, a physical line
the chunk's first line plus `RawRecord.line`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from records.boundaries import Boundaries, csv_boundaries, line_offsets, ndjson_boundaries
from records.piece import Format, Piece


class RawRecord(NamedTuple):
    """A record as the caller wrote it, without its line end, and its line counted from the chunk's first (0)."""

    line: int
    raw: bytes


def raw_texts(data: bytes, format: Format, delimiter: str = ",") -> list[bytes]:
    """The text of every record as the caller wrote it, without line ends; blank lines are left out."""
    if _is_plain(data, format):
        return data.removesuffix(b"\n").split(b"\n")
    found = _boundaries(data, format, delimiter)
    return [
        _without_line_end(data[start:end])
        for start, end in zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    ]


def raw_records(
    data: bytes, format: Format, delimiter: str = ",", records: Sequence[int] | None = None
) -> list[RawRecord]:
    """The records with their lines: all, or those asked for, in the order asked for.

    Raises:
        IndexError: the chunk has no such record.
    """
    found = _boundaries(data, format, delimiter)
    wanted = slice(None) if records is None else np.asarray(records, np.intp)
    starts, ends = found.starts[wanted], found.ends[wanted]
    lines = line_offsets(data, starts)
    return [
        RawRecord(line, _without_line_end(data[start:end]))
        for line, start, end in zip(lines.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ]


def select(data: bytes, records: Sequence[int], format: Format, delimiter: str = ",") -> bytes:
    """The bytes of only some records, each with its line end, in the order asked for.

    Raises:
        IndexError: the chunk has no such record.
    """
    found = _boundaries(data, format, delimiter)
    wanted = np.asarray(records, np.intp)
    starts, ends = found.starts[wanted].tolist(), found.ends[wanted].tolist()
    return b"".join(_with_line_end(data[start:end]) for start, end in zip(starts, ends, strict=True))


def halve(piece: Piece, format: Format, delimiter: str = ",") -> tuple[Piece, Piece]:
    """Cut a piece of at least two records in two, at its middle record.

    Raises:
        ValueError: it has fewer than two.
    """
    found = _boundaries(piece.data, format, delimiter)
    rows = int(found.starts.size)
    if rows < 2:
        raise ValueError(f"a chunk of {rows} rows cannot be cut in two")
    middle = rows // 2
    place = int(found.starts[middle])
    line = piece.first_line + piece.data.count(b"\n", 0, place)
    return (
        Piece(piece.first_row, middle, piece.first_line, piece.data[:place]),
        Piece(piece.first_row + middle, rows - middle, line, piece.data[place:]),
    )


def _is_plain(data: bytes, format: Format) -> bool:
    """Whether each line is a record and ends with LF, so that the text need not be searched for boundaries."""
    if not data or data[:1] == b"\n" or b"\r" in data or b"\n\n" in data:
        return False
    return b'"' not in data if format == "csv" else b"\n " not in data and b"\n\t" not in data and data[:1] == b"{"


def _boundaries(data: bytes, format: Format, delimiter: str) -> Boundaries:
    if format == "ndjson":
        return ndjson_boundaries(data, final=True)
    return csv_boundaries(data, delimiter, final=True)


def _without_line_end(record: bytes) -> bytes:
    return record.removesuffix(b"\n").removesuffix(b"\r")


def _with_line_end(record: bytes) -> bytes:
    return record if record.endswith(b"\n") else record + b"\n"
