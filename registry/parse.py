"""The way from a stored chunk to typed rows: `parse_csv`, `parse_ndjson`, whichever of them suits it, and what they give."""

from __future__ import annotations

from registry.parse_csv import parse_csv
from registry.parse_ndjson import parse_ndjson
from registry.parsed import Parsed
from registry.signature import Signature

__all__ = ["Parsed", "parse_chunk", "parse_csv", "parse_ndjson"]


def parse_chunk(
    data: bytes,
    *,
    format: str,
    columns: list[str],
    delimiter: str,
    signature: Signature,
    key_column: str | None = None,
    first_row: int = 1,
    first_line: int = 1,
    max_cell_chars: int,
) -> Parsed:
    """Whole records of a job, by its format (`csv`, `ndjson`); `columns` and `delimiter` are of CSV.

    Raises:
        InvalidInput: a file lacks a column of the signature.
    """
    if format == "csv":
        return parse_csv(
            data,
            header=columns,
            delimiter=delimiter,
            signature=signature,
            key_column=key_column,
            first_row=first_row,
            first_line=first_line,
            max_cell_chars=max_cell_chars,
        )
    return parse_ndjson(
        data,
        signature=signature,
        key_column=key_column,
        first_row=first_row,
        first_line=first_line,
        max_cell_chars=max_cell_chars,
    )
