"""What a JSON value means as a cell: the same typed arrays and faults as `registry.cells` makes of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from registry.cells import CONVERSIONS, Faults, checked, mismatch, strings
from registry.row_text import quoted, shortened
from registry.signature import Column


def from_json(column: Column, cells: Sequence[Any], max_chars: int) -> tuple[Any, Faults]:
    """A column of JSON values as a typed array, and what is wrong with which of them.

    A number or integer takes a JSON number, a boolean true, false, 1 or 0, the others a JSON string; all take null.
    The values of cells at fault mean nothing.
    """
    wanted, expectation = _JSON_TYPES[column.type]
    faults: Faults = {}
    wrong: Faults = {}
    if not set(map(type, cells)) <= wanted:
        faults = {
            at: ("wrong_type", f"column '{column.name}' holds {json_words(cell)}; expected {expectation}")
            for at, cell in enumerate(cells)
            if type(cell) not in wanted
        }
        cells = [None if at in faults else cell for at, cell in enumerate(cells)]
    if column.type in ("number", "integer"):
        values = _json_numbers(cells)
    elif column.type == "boolean":
        values, wrong = _json_booleans(column, cells)
    else:
        texts, broken = strings(column.name, cells)
        values, wrong = CONVERSIONS[column.type](column, texts)
        wrong = wrong | broken
    return checked(column, values, wrong | faults, max_chars, lambda at: cells[at])


_JSON_TYPES: dict[str, tuple[set[type], str]] = {
    "number": ({int, float, type(None)}, "a JSON number or null"),
    "integer": ({int, float, type(None)}, "a whole JSON number or null"),
    "boolean": ({bool, int, type(None)}, "true, false or null"),
    "category": ({str, type(None)}, "a JSON string or null"),
    "text": ({str, type(None)}, "a JSON string or null"),
    "timestamp": ({str, type(None)}, "a JSON string with an ISO 8601 date or time, or null"),
}


def json_words(cell: Any) -> str:
    """A JSON value of a wrong type, for a message."""
    if cell is None or isinstance(cell, bool):
        return {None: "null", True: "true", False: "false"}[cell]
    if isinstance(cell, str):
        return f"the string {quoted(cell)}"
    if isinstance(cell, list | dict):
        return "a list" if isinstance(cell, list) else "an object"
    return f"the number {shortened(str(cell), 60)}"


def _json_numbers(cells: Sequence[Any]) -> Any:
    try:
        floats = np.array(cells, dtype=np.float64)
    except OverflowError:  # a whole number with more than 308 digits
        floats = np.array([cell if cell is None else _float(cell) for cell in cells], dtype=np.float64)
    return pa.array(floats, mask=np.fromiter((cell is None for cell in cells), dtype=bool, count=len(cells)))


def _json_booleans(column: Column, cells: Sequence[Any]) -> tuple[Any, Faults]:
    odd = {at for at, cell in enumerate(cells) if cell is not None and cell not in (0, 1)}
    values = pa.array([None if cell is None or at in odd else bool(cell) for at, cell in enumerate(cells)], pa.bool_())
    return values, {at: ("wrong_type", mismatch(column, cells[at], "true, false or null")) for at in odd}


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
