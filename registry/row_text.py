"""How the text of a row, a key and a cell is told in a row error. No ML library is imported here."""

from __future__ import annotations

from typing import Literal

RowErrorCode = Literal[
    "wrong_type",
    "missing_value",
    "wrong_field_count",
    "non_finite",
    "too_long",
    "invalid_json",
    "missing_column",
    "model_error",
    "worker_crash",
]

#: Characters of a record that a row error repeats; the whole record stays in the chunk.
RAW_CHARS = 2_000
_CELL_CHARS = 60


def storable(text: str) -> str:
    """`text` with what Postgres cannot store (NUL, lone surrogates) replaced by U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def shortened(text: str, chars: int = RAW_CHARS) -> str:
    return text if len(text) <= chars else text[: chars - 3] + "..."


def quoted(cell: object) -> str:
    """A cell for a message: in quotes, escaped, and shortened to what a person reads."""
    return storable(repr(shortened(cell if isinstance(cell, str) else str(cell), _CELL_CHARS)))
