"""The reference of a model version: a CSV sample, and the types of its columns.

Types are inferred from the text of all cells of a column, so that they are what `pandas.read_csv` would have given the
model when it was fitted. The first rule that fits counts:

1. Every cell null (blank or a null word such as `NA`): number, nullable.
2. Every other cell `true`, `True`, `TRUE`, `false`, `False` or `FALSE`: boolean.
3. Every other cell digits with at most a sign, none beyond 2**53 - 1: integer, however few values there are.
4. Every other cell a finite number: number.
5. At most 100 distinct values, and fewer than half as many as rows: category.
6. Else text.

Nothing becomes a timestamp by itself, because `read_csv` leaves dates as text; `registry.examine` tries timestamps
when the model does not take the text. A column is nullable when a cell of its is null (for category and text: empty).
Numbers get the minimum and maximum, categories the sorted values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from errors import InvalidPackage
from records.boundaries import csv_boundaries, fields
from registry import cells
from registry.parse import Parsed, parse_csv
from registry.signature import Column, Signature

MAX_CATEGORIES = 100
_PANDAS_TRUE = ("true", "True", "TRUE")
_PANDAS_FALSE = ("false", "False", "FALSE")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Reference:
    """The text of a reference: the header, the records without it, and each column's cells as a string array."""

    header: list[str]
    delimiter: str
    data: bytes
    first_line: int
    columns: dict[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def read_reference(path: Path, delimiter: str = ",") -> Reference:
    """Read a reference CSV with a header, UTF-8.

    Raises:
        InvalidPackage: it is empty, not UTF-8, has a name twice, or a record with another number of fields.
    """
    content = path.read_bytes().removeprefix(_BOM)
    starts = csv_boundaries(content, delimiter, final=True).starts
    if len(starts) < 2:
        raise InvalidPackage(f"the reference {path.name} has no records; expected a header and at least one record")
    try:
        header = fields(content[starts[0] : starts[1]], delimiter)
        content.decode()
    except UnicodeDecodeError as exc:
        raise InvalidPackage(f"the reference {path.name} is not UTF-8 ({exc}); save it as UTF-8") from exc
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidPackage(f"the reference {path.name} names columns twice: {', '.join(twice)}; rename one of each")
    data, first_line = content[starts[1] :], 1 + content.count(b"\n", 0, starts[1])
    return Reference(header, delimiter, data, first_line, _texts(header, data, first_line, delimiter))


def parse_reference(sample: Reference, signature: Signature) -> Parsed:
    """The records of a reference as rows of a signature, numbered from 1."""
    return parse_csv(
        sample.data,
        header=sample.header,
        delimiter=sample.delimiter,
        signature=signature,
        key_column=None,
        first_row=1,
        first_line=sample.first_line,
        max_cell_chars=len(sample.data),
    )


def infer_column(name: str, texts: Any) -> Column:
    """The type of a column from its cells (a string array), by the rules above."""
    trimmed = cells.nulled(texts)
    present = pc.drop_null(trimmed)
    nullable = bool(trimmed.null_count)
    if pc.all(pc.is_in(present, value_set=pa.array([*_PANDAS_TRUE, *_PANDAS_FALSE]))).as_py() and len(present):
        return Column(name=name, type="boolean", nullable=nullable)
    numbers = _numbers(name, present)
    if numbers is None:
        return _words(name, texts)
    if not len(numbers):
        return Column(name=name, type="number", nullable=True)
    low, high = pc.min_max(numbers).as_py().values()
    digits = pc.all(pc.match_substring_regex(present, "^[+-]?[0-9]+$")).as_py()
    whole = digits and max(abs(low), abs(high)) <= cells.LARGEST_INTEGER
    return Column(name=name, type="integer" if whole else "number", nullable=nullable, minimum=low, maximum=high)


def _texts(header: list[str], data: bytes, first_line: int, delimiter: str) -> dict[str, Any]:
    as_text = Signature(columns=[Column(name=name, type="text", nullable=True) for name in header])
    parsed = parse_csv(
        data,
        header=header,
        delimiter=delimiter,
        signature=as_text,
        key_column=None,
        first_row=1,
        first_line=first_line,
        max_cell_chars=len(data),
    )
    if parsed.errors:
        first = parsed.errors[0]
        raise InvalidPackage(
            f"{len(parsed.errors)} records of the reference cannot be read, the first on line {first.line}: "
            f"{first.message}; mend or remove them"
        )
    return {name: pc.fill_null(parsed.features.column(name).combine_chunks(), "") for name in header}


def _numbers(name: str, present: Any) -> Any | None:
    """The numbers that all cells spell, or None."""
    values, faults = cells.from_texts(Column(name=name, type="number"), present, max_chars=0)
    return None if faults else values


def _words(name: str, texts: Any) -> Column:
    words = cells.blank_to_null(texts)
    distinct = pc.drop_null(pc.unique(words))
    nullable = bool(words.null_count)
    if len(distinct) <= MAX_CATEGORIES and 2 * len(distinct) < len(texts):
        return Column(name=name, type="category", nullable=nullable, categories=sorted(distinct.to_pylist()))
    return Column(name=name, type="text", nullable=nullable)
