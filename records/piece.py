"""A run of whole records, and the bounds within which a file is cut into such runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from settings import Settings

Format = Literal["csv", "ndjson"]

_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of records: the number of the first (1-based), how many, its physical line in the file, and their bytes.

    `data` begins with the first record. It ends with a line end unless the file does not.
    """

    first_row: int
    rows: int
    first_line: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in bytes, columns and rows; `Limits.of(settings)` takes them from the settings."""

    chunk_bytes: int = 2 * _MIB
    max_record_bytes: int = _MIB
    max_columns: int = 2_000
    first_piece_bytes: int = 128 * _KIB
    chunk_rows: int | None = None

    @classmethod
    def of(cls, settings: Settings, seconds_per_row: float | None = None) -> Limits:
        return cls(
            settings.chunk_bytes,
            settings.max_record_bytes,
            settings.max_columns,
            chunk_rows=rows_in_time(settings, seconds_per_row),
        )


def rows_in_time(settings: Settings, seconds_per_row: float | None) -> int | None:
    """How many rows of a version a chunk may have, so that it takes a fifth of the time in which it must be done.

    The rest is for a slower machine, and for rows that take longer than those of the reference. None: any number.
    """
    if not seconds_per_row:
        return None
    return max(int(settings.chunk_time_limit / 5 / seconds_per_row), 1)
