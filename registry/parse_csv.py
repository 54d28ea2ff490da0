"""A chunk of CSV to typed columns: at once when all is well, cell by cell only where something is wrong.

The fast path is one pyarrow read of the chunk and a few vectorised checks. Whenever one of them fails, the chunk, and
only that chunk, is parsed again by the slow path, which finds the cells at fault. Both give the same bits for good
cells: whether a neighbour is broken never changes a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from errors import InvalidInput
from records.boundaries import csv_boundaries
from registry import cells
from registry.parsed import Diagnosis, Parsed, Positions, Records
from registry.signature import Column, Signature

_BOM = b"\xef\xbb\xbf"
_READ_AS = {
    "number": pa.float64(),
    "integer": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "text": pa.string(),
    "timestamp": pa.string(),  # arrow reads either all with an offset or all without
}


def parse_csv(
    data: bytes,
    *,
    header: list[str],
    delimiter: str,
    signature: Signature,
    key_column: str | None,
    first_row: int,
    first_line: int,
    max_cell_chars: int,
) -> Parsed:
    """Parse whole CSV records without a header row.

    Args:
        data: UTF-8, lines end with LF or CRLF; blank lines are no records.
        header: the names of all columns of the file; those that are neither features nor the key are not looked at.
        key_column: the column whose text becomes `keys`, untouched; it may be a feature as well.
        first_row: number of the first record, from 1.
        first_line: physical line on which `data` begins (2 for the first chunk of a file whose header is one line).
        max_cell_chars: bound on category, text and key cells, in characters.

    Raises:
        InvalidInput: the header lacks a column, or `data` is not whole records (an open quote, a bare CR).
    """
    signature.check_columns(header)
    if key_column is not None and key_column not in header:
        raise InvalidInput(f"the key column '{key_column}' is not in the header; name one of its columns")
    layout = _Layout(header, delimiter, signature, key_column, max_cell_chars)
    fast = _read(data, layout)
    if fast is not None:
        keys, features = fast
        rows = np.arange(first_row, first_row + features.num_rows, dtype=np.int64)
        return Parsed(rows, keys, features, [], first_row, first_line, lambda: split(data, delimiter))
    return _diagnose(Diagnosis(first_row, first_line, split(data, delimiter)), layout)


@dataclass(frozen=True)
class _Layout:
    """How the file of a chunk is laid out, and what is wanted from it."""

    header: list[str]
    delimiter: str
    signature: Signature
    key_column: str | None
    max_cell_chars: int


def split(data: bytes, delimiter: str) -> Records:
    """The records of a chunk.

    Raises:
        InvalidInput: `data` is not whole records.
    """
    found = csv_boundaries(data, delimiter, final=True)
    if found.in_quotes or found.bare_cr is not None:
        what = "a quote that is never closed" if found.in_quotes else "a carriage return without a line feed"
        raise InvalidInput(f"the chunk holds {what}; close it and submit the file again")
    return Records(data, found)


# ---- fast path


def _read(data: bytes, layout: _Layout) -> tuple[Any, Any] | None:
    """Keys and features of a chunk without a fault, else None."""
    types = {column.name: _READ_AS[column.type] for column in layout.signature.columns}
    if layout.key_column is not None:
        types[layout.key_column] = pa.string()
    table = _arrow_table(data, layout, types)
    if table is None or not _holds_all(table.num_rows, data, layout.delimiter):
        return None
    features: dict[str, Any] = {}
    for column in layout.signature.columns:
        values = _feature(column, _array(table, column.name), layout.max_cell_chars)
        if values is None:
            return None
        features[column.name] = values
    keys = None if layout.key_column is None else _array(table, layout.key_column)
    if keys is not None and cells.too_long("", keys, layout.max_cell_chars):
        return None
    return keys, pa.table(features)


def _is_plain(data: bytes) -> bool:
    """Whether arrow certainly cuts `data` where we do: it drops a BOM and takes a bare CR for a line end."""
    if not data or data.startswith(_BOM) or b"\0" in data:
        return False
    return b"\r" not in data or data.count(b"\r") == data.count(b"\r\n")


def _holds_all(rows: int, data: bytes, delimiter: str) -> bool:
    """Whether arrow found every record. Without quotes that is one per line; it passes over blank lines, so less is not wrong yet."""
    if b'"' not in data and rows == data.count(b"\n") + (not data.endswith(b"\n")):
        return True
    return rows == len(csv_boundaries(data, delimiter, final=True).starts)


def _arrow_table(data: bytes, layout: _Layout, types: dict[str, Any], misfits: Any = None) -> Any:
    """The columns in `types`, or None when arrow would not cut `data` as we do, or finds a cell that is not its type.

    `misfits` is called for each record with a wrong number of fields and tells what to do with it.
    """
    if not _is_plain(data):
        return None
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(data) + 1, column_names=layout.header
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=layout.delimiter, newlines_in_values=b'"' in data, invalid_row_handler=misfits
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=["", *cells.NULL_WORDS],
                true_values=list(cells.TRUE_WORDS),
                false_values=list(cells.FALSE_WORDS),
                strings_can_be_null=False,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None


def _array(table: Any, name: str) -> Any:
    chunks = table.column(name)
    return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()


def _feature(column: Column, values: Any, max_cell_chars: int) -> Any | None:
    """The typed array of a column as arrow read it, or None when it has a fault."""
    if pa.types.is_string(values.type) and column.type != "text":  # a timestamp, or the key column
        typed, faults = cells.from_texts(column, values, max_cell_chars)
        return None if faults else typed
    if column.type in ("category", "text"):
        values = cells.blank_to_null(values)
    return values if cells.is_sound(column, values, max_cell_chars) else None


# ---- slow path


def _diagnose(diagnosis: Diagnosis, layout: _Layout) -> Parsed:
    signature, key_column = layout.signature, layout.key_column
    needed = [name for name in layout.header if name in signature.names or name == key_column]
    texts, positions = _texts(diagnosis, layout, needed)
    by_name = {column.name: column for column in signature.columns}
    features = dict.fromkeys(signature.names)
    keys = None if key_column is None else texts[key_column][0]
    for name in needed:  # from left to right, so that a record's first bad cell is the one that is told
        values, faults = texts[name]
        if name == key_column:
            faults = cells.too_long(name, values, layout.max_cell_chars) | faults
        diagnosis.add_column(name, faults, positions, keys)
        if name in features:
            features[name], wrong = cells.from_texts(by_name[name], values, layout.max_cell_chars)
            diagnosis.add_column(name, wrong, positions, keys)
    return diagnosis.parsed(positions, keys, features)


#: By column: the text of its cells, and the cells that no database could hold.
Texts = dict[str, tuple[Any, cells.Faults]]


def _texts(diagnosis: Diagnosis, layout: _Layout, needed: list[str]) -> tuple[Texts, Positions]:
    """The cells of the `needed` columns as text, and which records they are from: those with the right width."""
    header, records, misfits = layout.header, diagnosis.records, dict[int, int]()

    def skip(record: Any) -> str:
        misfits[record.number - 1] = record.actual_columns
        return "skip"

    table = _arrow_table(records.data, layout, dict.fromkeys(needed, pa.string()), skip)
    if table is None or table.num_rows + len(misfits) != len(records):
        columns, positions, misfits = _cut(records, layout)
        texts = {name: cells.strings(name, columns[header.index(name)]) for name in needed}
    else:
        positions = np.delete(np.arange(len(diagnosis.records)), list(misfits))
        texts = {name: (_array(table, name), {}) for name in needed}
    for position, count in misfits.items():
        fields = _fields(records.text(position), layout.delimiter)
        place = count if layout.key_column is None else header.index(layout.key_column)
        key = fields[place] if place < len(fields) else None
        told = f"the record has {count} fields, the header {len(header)}; quote cells that hold the delimiter"
        diagnosis.add(position, None, "wrong_field_count", told, key)
    return texts, positions


def _cut(records: Records, layout: _Layout) -> tuple[Sequence[Sequence[str]], Positions, dict[int, int]]:
    """What arrow would do, for text that it would cut otherwise: columns, their positions, misfits and their widths."""
    width = len(layout.header)
    rows = [_fields(records.text(position), layout.delimiter) for position in range(len(records))]
    misfits = {position: len(row) for position, row in enumerate(rows) if len(row) != width}
    positions = np.delete(np.arange(len(rows)), list(misfits))
    fitting = [row for row in rows if len(row) == width]
    return list(zip(*fitting, strict=True)) or [()] * width, positions, misfits


def _fields(record: str, delimiter: str) -> list[str]:
    """The cells of a record as `csv.reader` and arrow cut them, without the csv module's bound on their length."""
    if '"' not in record:
        return record.split(delimiter)
    found: list[str] = []
    place = 0
    while True:
        cell = ""
        if record.startswith('"', place):
            cell, place = _quoted(record, place + 1)
        end = record.find(delimiter, place)
        if end < 0:
            return [*found, cell + record[place:]]
        found.append(cell + record[place:end])
        place = end + 1


def _quoted(record: str, place: int) -> tuple[str, int]:
    """The text of a quoted cell whose text begins at `place`, and the place after its closing quote."""
    parts: list[str] = []
    while True:
        end = record.find('"', place)
        if end < 0:
            return "".join([*parts, record[place:]]), len(record)
        parts.append(record[place:end])
        if not record.startswith('"', end + 1):
            return "".join(parts), end + 1
        parts.append('"')
        place = end + 2
