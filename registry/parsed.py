"""A chunk after parsing: the rows that can be scored, typed, and a row error for each of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from records.boundaries import Boundaries, Offsets, line_offsets
from records.row_error import RowError
from registry.cells import Faults
from registry.row_text import RowErrorCode, shortened, storable

Rows = npt.NDArray[np.int64]
#: Places of records in their chunk, from 0.
Positions = npt.NDArray[np.int64]


class Records:
    """The raw records of a chunk, cut only when they are asked for."""

    def __init__(self, data: bytes, found: Boundaries) -> None:
        self.data = data
        self._found = found

    def __len__(self) -> int:
        return len(self._found.starts)

    def raw(self, position: int) -> bytes:
        """The bytes of a record without its line end."""
        record = self.data[self._found.starts[position] : self._found.ends[position]]
        return record.removesuffix(b"\n").removesuffix(b"\r")

    def text(self, position: int) -> str:
        """Like `raw`; bytes that are not UTF-8 become lone surrogates."""
        return self.raw(position).decode("utf-8", "surrogateescape")

    def told(self, position: int) -> str:
        """The record for a row error: shortened, and something that Postgres can store."""
        return shortened(storable(self.text(position)))

    def line(self, position: int) -> int:
        """The physical line on which a record starts, counted from 0."""
        return int(self._lines[position])

    @cached_property
    def _lines(self) -> Offsets:
        return line_offsets(self.data, self._found.starts)


@dataclass
class Parsed:
    """Every record of the chunk is either in `rows` or in exactly one of `errors`.

    Attributes:
        rows: row numbers (n,) of the good rows, ascending.
        keys: string array (n,) with the key column's text, untouched; None without a key column.
        features: table (n rows) with the signature's columns in its order, typed as `registry.cells` says.
        errors: ascending by row.
    """

    rows: Rows
    keys: Any
    features: Any
    errors: list[RowError]
    first_row: int = field(repr=False)
    first_line: int = field(repr=False)
    source: Callable[[], Records] = field(repr=False)

    def record(self, row: int) -> tuple[str, int]:
        """The text of any row of the chunk, shortened, and the physical line on which it starts."""
        position = row - self.first_row
        return self._records.told(position), self.first_line + self._records.line(position)

    def error(self, position: int, code: RowErrorCode, message: str) -> RowError:
        """A row error for the good row at `position` of `rows`."""
        row = int(self.rows[position])
        raw, line = self.record(row)
        key = None if self.keys is None else self.keys[position].as_py()
        return RowError(row, line, key, None, code, storable(message), raw)

    @cached_property
    def _records(self) -> Records:
        # Only rows at fault need their text, so the chunk is not cut into records until one does.
        return self.source()


@dataclass
class Diagnosis:
    """The faults found in a chunk so far: of each record the first one from left to right."""

    first_row: int
    first_line: int
    records: Records
    errors: dict[int, RowError] = field(default_factory=dict)  # by position in the chunk

    def add(self, position: int, column: str | None, code: RowErrorCode, message: str, key: str | None) -> None:
        if position in self.errors:
            return
        told = None if key is None else shortened(storable(key))
        row, line = self.first_row + position, self.first_line + self.records.line(position)
        self.errors[position] = RowError(row, line, told, column, code, storable(message), self.records.told(position))

    def add_column(self, column: str, faults: Faults, positions: Positions, keys: Any) -> None:
        """Faults of one column, given by index into `positions` and into the array `keys`."""
        for index, (code, message) in faults.items():
            key = None if keys is None else keys[index].as_py()
            self.add(int(positions[index]), column, code, message, key)

    def parsed(self, positions: Positions, keys: Any, features: dict[str, Any]) -> Parsed:
        """What remains: `keys` and `features` are arrays over `positions`."""
        table = pa.table(features)
        good = ~np.isin(positions, list(self.errors))
        if not good.all():
            keep = pa.array(np.flatnonzero(good))
            table, keys = table.take(keep), keys if keys is None else keys.take(keep)
        errors = [self.errors[position] for position in sorted(self.errors)]
        rows = positions[good] + self.first_row
        return Parsed(rows, keys, table, errors, self.first_row, self.first_line, lambda: self.records)
