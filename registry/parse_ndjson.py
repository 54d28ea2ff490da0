"""A chunk of JSON records, one per line, to typed columns.

The decoder of the standard library reads each record, and columns whose values all have the right type are converted
as a whole; only the others are looked at value by value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from records.boundaries import ndjson_boundaries
from records.json_text import MAX_DEPTH, check_depth
from registry import cells
from registry.cells import Faults
from registry.json_cells import from_json, json_words
from registry.parsed import Diagnosis, Parsed, Records
from registry.signature import Signature


def parse_ndjson(
    data: bytes,
    *,
    signature: Signature,
    key_column: str | None,
    first_row: int,
    first_line: int,
    max_cell_chars: int,
) -> Parsed:
    """Parse JSON objects, one per line; lines of white space are no records.

    A number is the float64 nearest to it, as in CSV. Of two members with one name the last counts. Keys may be strings,
    numbers (their shortest spelling becomes the key) or null.

    Args: as of `parse_csv`.
    """
    diagnosis = Diagnosis(first_row, first_line, split(data))

    # Braces within cells are rare, so most chunks are known to be flat at a glance.
    flat = data.count(b"[") + data.count(b"{") <= len(diagnosis.records)
    found: list[int] = []
    records: list[dict[str, Any]] = []
    for position in range(len(diagnosis.records)):
        record = _record(diagnosis, position, signature, key_column, flat=flat)
        if record is not None:
            found.append(position)
            records.append(record)
    positions = np.array(found, dtype=np.int64)
    keys = None
    if key_column is not None:
        keys, faults = _keys(key_column, [record[key_column] for record in records])
        faults = cells.too_long(key_column, keys, max_cell_chars) | faults
        diagnosis.add_column(key_column, faults, positions, keys)
    features = {}
    for column in signature.columns:
        values, faults = from_json(column, [record[column.name] for record in records], max_cell_chars)
        diagnosis.add_column(column.name, faults, positions, keys)
        features[column.name] = values
    return diagnosis.parsed(positions, keys, features)


def split(data: bytes) -> Records:
    """The records of a chunk."""
    return Records(data, ndjson_boundaries(data, final=True))


def _record(
    diagnosis: Diagnosis, position: int, signature: Signature, key_column: str | None, *, flat: bool
) -> dict[str, Any] | None:
    """The record if it is an object with all members that are needed; else it is diagnosed."""
    try:
        record = _decoded(diagnosis.records.raw(position))
        if not flat:
            check_depth(record)
    except (ValueError, RecursionError) as exc:
        told = f"it is nested more than {MAX_DEPTH} deep" if isinstance(exc, RecursionError) else str(exc)
        diagnosis.add(position, None, "invalid_json", f"the line is not a JSON object: {told}", None)
        return None
    if not isinstance(record, dict):
        told = f"the line holds {json_words(record)}; expected one JSON object per line"
        diagnosis.add(position, None, "invalid_json", told, None)
        return None
    wanted = signature.names if key_column is None else [key_column, *signature.names]
    for name in wanted:
        if name not in record:
            key = None if key_column is None else _some_key(record.get(key_column))
            problem = signature.problem(name, list(record), "#/inputs")
            diagnosis.add(position, name, "missing_column", problem.detail, key)
            return None
    return record


def _decoded(raw: bytes) -> Any:
    text = raw.decode()
    try:
        # decode() without its two looks for white space
        value, end = _scan_once(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number with more digits than Python turns into an int
        return _FLOAT_DECODER.decode(text)
    return _DECODER.decode(text)


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON; a missing value is null", name, 0)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_scan_once: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]  # typeshed lacks it
_FLOAT_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float)


def _keys(name: str, values: Sequence[Any]) -> tuple[Any, Faults]:
    told = [value if value is None or type(value) is str else _some_key(value) for value in values]
    keys, faults = cells.strings(name, told)
    for at, (key, value) in enumerate(zip(told, values, strict=True)):
        if key is None and value is not None:
            message = f"key column '{name}' holds {json_words(value)}; expected a string or a number"
            faults[at] = ("wrong_type", message)
    return keys, faults


def _some_key(value: Any) -> str | None:
    """The key as text, if a key it is."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
