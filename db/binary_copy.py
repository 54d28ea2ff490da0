"""Rows in Postgres' binary COPY format, built column by column with numpy.

The server takes it at nearly three times the rate of CSV, because it parses nothing (PostgreSQL documentation, COPY,
"Binary Format"): a signature, then per row the number of fields, and per field its length and its bytes, big-endian; a
NULL is a field of length -1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Lengths = npt.NDArray[np.int32]

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no header extension
_END = b"\xff\xff"
_FLOAT8_OID = 701


@dataclass(frozen=True)
class Field:
    """One column of n rows: `lengths` (n,) in bytes, -1 for NULL; `data`, their bytes one after the other."""

    lengths: Lengths
    data: Bytes

    @property
    def width(self) -> int | None:
        """The length that all rows have, NULL counting as 0; None if they differ."""
        first = self.lengths[0]
        return max(int(first), 0) if (self.lengths == first).all() else None


def encode(fields: Sequence[Field]) -> bytes:
    """The whole COPY stream of rows with these fields; empty for no rows."""
    if len(fields[0].lengths) == 0:
        return b""
    widths = [field.width for field in fields]
    rows = _uniform(fields, [width for width in widths if width is not None]) if None not in widths else _ragged(fields)
    return b"".join((_SIGNATURE, rows.data, _END))


def row(fields: Sequence[bytes]) -> bytes:
    """The whole COPY stream of one row, whose fields are in their binary form already."""
    cells = b"".join(struct.pack(">i", len(field)) + field for field in fields)
    return b"".join((_SIGNATURE, struct.pack(">h", len(fields)), cells, _END))


def integers(values: npt.NDArray[Any]) -> Field:
    return _fixed(values.astype(">i4"))


def floats(values: npt.NDArray[np.float64]) -> Field:
    return _fixed(values.astype(">f8"))


def float_arrays(values: npt.NDArray[np.float64]) -> Field:
    """`double precision[]` of (n, k) values."""
    count, size = values.shape
    row = np.zeros((count, 20 + 12 * size), np.uint8)
    row[:, :20] = np.array([1, 0, _FLOAT8_OID, size, 1], ">i4").view(np.uint8)  # dimensions, nulls, type, size, base
    elements = row[:, 20:].reshape(count, size, 12)
    elements[:, :, :4] = np.array([8], ">i4").view(np.uint8)
    elements[:, :, 4:] = np.ascontiguousarray(values.astype(">f8")).view(np.uint8).reshape(count, size, 8)
    return _fixed(row)


def uuids(values: Sequence[UUID], index: npt.NDArray[Any]) -> Field:
    """`values[i]` for each i of `index` (n,)."""
    table = np.frombuffer(b"".join(value.bytes for value in values), np.uint8).reshape(-1, 16)
    return _fixed(table[index])


def texts(offsets: npt.NDArray[Any], data: Bytes, nulls: npt.NDArray[np.bool_] | None = None) -> Field:
    """UTF-8 texts: row i is `data[offsets[i]:offsets[i + 1]]`, or NULL, which takes no bytes."""
    lengths = np.diff(offsets).astype(np.int32)
    if nulls is not None:
        lengths[nulls] = -1
    return Field(lengths, data[offsets[0] : offsets[-1]])


def nothing(count: int) -> Field:
    """NULL in every row."""
    return Field(np.full(count, -1, np.int32), np.empty(0, np.uint8))


def _fixed(values: npt.NDArray[Any]) -> Field:
    flat = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    return Field(np.full(len(values), flat.size // max(len(values), 1), np.int32), flat)


def _uniform(fields: Sequence[Field], widths: Sequence[int]) -> Bytes:
    """All rows are of one size: a matrix, filled by column ranges."""
    count = len(fields[0].lengths)
    rows = np.empty((count, 2 + sum(4 + width for width in widths)), np.uint8)
    rows[:, :2] = _big_endian(np.array([len(fields)]), ">i2")
    at = 2
    for field, width in zip(fields, widths, strict=True):
        rows[:, at : at + 4] = _big_endian(field.lengths[:1], ">i4")
        rows[:, at + 4 : at + 4 + width] = field.data.reshape(count, width)
        at += 4 + width
    return rows.reshape(-1)


def _ragged(fields: Sequence[Field]) -> Bytes:
    """Rows differ in size: every piece is scattered to where its row has come to."""
    count = len(fields[0].lengths)
    sizes = np.full(count, 2 + 4 * len(fields)) + np.sum([np.maximum(field.lengths, 0) for field in fields], axis=0)
    rows = np.empty(int(sizes.sum()), np.uint8)
    at = np.cumsum(sizes) - sizes
    rows[at[:, None] + np.arange(2)] = _big_endian(np.array([len(fields)]), ">i2")
    at += 2
    for field in fields:
        rows[at[:, None] + np.arange(4)] = _big_endian(field.lengths, ">i4").reshape(count, 4)
        at += 4
        lengths = np.maximum(field.lengths, 0).astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        rows[np.repeat(at - starts, lengths) + np.arange(len(field.data))] = field.data
        at += lengths
    return rows


def _big_endian(values: npt.NDArray[Any], kind: str) -> Bytes:
    return np.ascontiguousarray(values.astype(kind)).view(np.uint8)
