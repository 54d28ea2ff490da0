"""Parquet downloads: one row group per chunk, written into memory and passed on at once."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from api.downloads import Table


def stream(table: Table, row_groups: Iterable[list[list[Any]]]) -> Iterator[bytes]:
    """The bytes of a Parquet file.

    Args:
        row_groups: lists of rows, each a list of values in the order of the table's header.
    """
    leading = pa.int64() if table.numbered else pa.string()
    types = [*([leading] * len(table.leading)), *(_type(kind, table) for kind in table.kinds)]
    schema = pa.schema(list(zip(table.header, types, strict=True)))
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for rows in row_groups:
            columns = list(zip(*rows, strict=True)) if rows else [()] * len(types)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.take()
    yield sink.take()


def _type(kind: str, table: Table) -> pa.DataType:
    if kind == "version":
        return pa.string()
    if kind == "prediction" and table.output.kind == "classification":
        types = {"integer": pa.int64(), "boolean": pa.bool_(), "number": pa.float64()}
        return types.get(str(table.output.class_type), pa.string())
    return pa.float64()


class _Sink(io.RawIOBase):
    """What was written and not taken yet; the position counts all of it, because Parquet's footer refers to it."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]  # any buffer, as of io.RawIOBase
        self._parts.append(block)
        self._written += len(block)
        return len(block)

    def take(self) -> bytes:
        block = b"".join(self._parts)
        self._parts.clear()
        return block
