"""A row error: the one record of a row that could not be scored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one row has no prediction; `docs/reference/cells.md` lists the codes.

    Attributes:
        row: number of the record in its job, from 1.
        line: physical line of the upload on which the record begins (a CSV header is line 1).
        key: the caller's own id of the record, when it could be read.
        column: the first column at fault; None when the whole record is.
        raw: the record as it was sent, shortened.
    """

    row: int
    line: int | None
    key: str | None
    column: str | None
    code: str
    message: str
    raw: str
