"""What a cell means: from the text of a column to a typed arrow array and the faults in it.

`docs/reference/cells.md` is this module in prose. Everything is vectorised; only cells that are at fault are looked at
one by one. Types of the arrays: number and integer float64, boolean bool, category dictionary<int32, string>, text
string, timestamp timestamp[us] in UTC without a zone. A null cell is null in each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry.row_text import RowErrorCode, quoted
from registry.signature import Column

#: Spellings of null in number, integer, boolean and timestamp cells, besides the blank cell.
NULL_WORDS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None")
TRUE_WORDS = ("true", "True", "TRUE", "1")
FALSE_WORDS = ("false", "False", "FALSE", "0")
#: The largest whole number up to which float64 holds every whole number: 2**53 - 1.
LARGEST_INTEGER = float(2**53 - 1)
#: What may stand around a number, boolean or timestamp.
PADDING = " \t"

_NUMBER = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_NOT_FINITE = re.compile(r"[+-]?(?:inf|infinity|nan(?:\(.*\))?)", re.IGNORECASE)
_OFFSET = r"[T ].*(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_CATEGORY = pa.dictionary(pa.int32(), pa.string())
_MOMENT = pa.timestamp("us")

Fault = tuple[RowErrorCode, str]
Faults = dict[int, Fault]  # by position in the column


def from_texts(column: Column, texts: Any, max_chars: int) -> tuple[Any, Faults]:
    """A column of CSV cells (a string array) as a typed array, and what is wrong with which of them.

    The values of cells at fault mean nothing.
    """
    if column.type not in ("category", "text"):
        texts = nulled(texts)
    values, faults = CONVERSIONS[column.type](column, texts)
    return checked(column, values, faults, max_chars, lambda at: texts[at].as_py())


def strings(name: str, cells: Sequence[str | None]) -> tuple[Any, Faults]:
    """Cells as an arrow string array; cells that no database could hold (not UTF-8, NUL) are faults and null."""
    faults: Faults = {}
    try:
        texts = pa.array(cells, pa.string())
    except UnicodeEncodeError:
        faults = {at: ("wrong_type", f"column '{name}' is not UTF-8") for at, cell in enumerate(cells) if _broken(cell)}
        texts = pa.array([None if at in faults else cell for at, cell in enumerate(cells)], pa.string())
    nuls = pc.match_substring(texts, "\0")
    if pc.any(nuls).as_py():
        for at in _positions(nuls):
            faults[at] = ("wrong_type", f"column '{name}' holds a NUL character")
        texts = pc.if_else(pc.fill_null(nuls, False), None, texts)
    return texts, faults


def too_long(name: str, values: Any, max_chars: int) -> Faults:
    """Faults of the cells of a string array with more than `max_chars` characters."""
    # Bytes are at hand, characters must be counted, and there are never more characters than bytes.
    if (pc.max(pc.binary_length(values)).as_py() or 0) <= max_chars:
        return {}
    lengths = pc.utf8_length(values)
    return {
        at: ("too_long", f"column '{name}' holds {lengths[at].as_py()} characters; at most {max_chars} are accepted")
        for at in _positions(pc.greater(lengths, max_chars))
    }


def blank_to_null(values: Any) -> Any:
    """A string or dictionary array with its empty cells as nulls."""
    if not pa.types.is_dictionary(values.type):
        return pc.if_else(pc.equal(values, ""), None, values)
    blank = pc.index(values.dictionary, "").as_py()
    if blank < 0:
        return values
    indices = pc.if_else(pc.equal(values.indices, blank), None, values.indices)
    return pa.DictionaryArray.from_arrays(indices, values.dictionary)


def is_sound(column: Column, values: Any, max_chars: int) -> bool:
    """Whether a typed array holds no fault at all: the quick question of the fast path."""
    if values.null_count and not column.nullable:
        return False
    if column.type in ("number", "integer"):
        return not len(values) or _numbers_are_sound(column, values)
    if column.type in ("category", "text"):
        words = values.dictionary if column.type == "category" else values
        return not too_long(column.name, words, max_chars)
    return True


def moments(column: Column, texts: Any) -> tuple[Any, Faults]:
    """ISO 8601 dates and times as timestamps in UTC; without an offset they are taken as UTC."""
    zoned = pc.fill_null(pc.match_substring_regex(texts, _OFFSET), False)
    faults: Faults = {}
    try:
        return _moments_of(texts, zoned), faults
    except pa.ArrowInvalid:
        for at, text in enumerate(texts.to_pylist()):
            try:
                _moments_of(texts.slice(at, 1), zoned.slice(at, 1))
            except pa.ArrowInvalid:
                expectation = "an ISO 8601 date or time such as 2013-04-30 or 2013-04-30T08:15:00Z"
                faults[at] = ("wrong_type", mismatch(column, text, expectation))
        return _moments_of(_without(texts, faults), zoned), faults


def _numbers(column: Column, texts: Any) -> tuple[Any, Faults]:
    try:
        return pc.cast(texts, pa.float64()), {}
    except pa.ArrowInvalid:
        spelled = pc.fill_null(pc.match_substring_regex(texts, _NUMBER), True)
        faults = {at: _not_a_number(column, texts[at].as_py()) for at in _positions(pc.invert(spelled))}
        return pc.cast(_without(texts, faults), pa.float64()), faults


def _booleans(column: Column, texts: Any) -> tuple[Any, Faults]:
    true = pc.is_in(texts, value_set=pa.array(TRUE_WORDS))
    false = pc.is_in(texts, value_set=pa.array(FALSE_WORDS))
    known = pc.or_(true, false)
    values = pc.if_else(known, true, pa.scalar(None, pa.bool_()))
    odd = pc.and_(pc.invert(known), pc.is_valid(texts))
    expectation = "true or false (or True, TRUE, 1, False, FALSE, 0)"
    return values, {at: ("wrong_type", mismatch(column, texts[at].as_py(), expectation)) for at in _positions(odd)}


def _texts(column: Column, texts: Any) -> tuple[Any, Faults]:
    del column
    return blank_to_null(texts), {}


def _categories(column: Column, texts: Any) -> tuple[Any, Faults]:
    del column
    return pc.cast(pc.dictionary_encode(blank_to_null(texts)), _CATEGORY), {}


#: By type: a string array, null where the cell is null, as a typed array with the faults in it.
CONVERSIONS: dict[str, Callable[[Column, Any], tuple[Any, Faults]]] = {
    "number": _numbers,
    "integer": _numbers,
    "boolean": _booleans,
    "category": _categories,
    "text": _texts,
    "timestamp": moments,
}


def checked(
    column: Column, values: Any, faults: Faults, max_chars: int, cell: Callable[[int], Any]
) -> tuple[Any, Faults]:
    """Add the faults of cells that have the right type: not finite, not whole, too long, null where none may be."""
    faults = dict(faults)
    if not column.nullable and values.null_count:
        for at in _positions(pc.is_null(values)):
            faults.setdefault(at, ("missing_value", f"column '{column.name}' is empty; this column takes no nulls"))
    if column.type in ("number", "integer") and not _numbers_are_sound(column, values):
        for at in _positions(pc.invert(pc.is_finite(values))):
            faults.setdefault(at, ("non_finite", mismatch(column, cell(at), "a finite number")))
        for at in _positions(_not_whole(values)) if column.type == "integer" else ():
            faults.setdefault(at, ("wrong_type", mismatch(column, cell(at), "a whole number of at most 2^53 - 1")))
    if column.type in ("category", "text"):
        words = pc.cast(values, pa.string()) if column.type == "category" else values
        faults = too_long(column.name, words, max_chars) | faults
    return values, faults


def _numbers_are_sound(column: Column, values: Any) -> bool:
    if pc.all(pc.is_finite(values)).as_py() is False:
        return False
    return column.type == "number" or pc.any(_not_whole(values)).as_py() is not True


def _not_whole(values: Any) -> Any:
    return pc.or_(pc.not_equal(pc.trunc(values), values), pc.greater(pc.abs(values), LARGEST_INTEGER))


def nulled(texts: Any) -> Any:
    """Texts without their padding, and with every spelling of null as null."""
    trimmed = pc.utf8_trim(texts, characters=PADDING)
    return pc.if_else(pc.is_in(trimmed, value_set=pa.array(["", *NULL_WORDS])), None, trimmed)


def _moments_of(texts: Any, zoned: Any) -> Any:
    local = pc.cast(pc.if_else(zoned, None, texts), _MOMENT)
    if not pc.any(zoned).as_py():
        return local
    universal = pc.cast(pc.if_else(zoned, texts, None), pa.timestamp("us", "UTC"))
    return pc.coalesce(local, pc.cast(universal, _MOMENT))


def _not_a_number(column: Column, text: str) -> Fault:
    if _NOT_FINITE.fullmatch(text):
        return ("non_finite", mismatch(column, text, "a finite number"))
    what = "a whole number" if column.type == "integer" else "a number"
    return ("wrong_type", mismatch(column, text, f"{what} such as 12, -0.5 or 1e3"))


def mismatch(column: Column, cell: Any, expectation: str) -> str:
    """The message about a cell that is not what its column takes."""
    return f"column '{column.name}' holds {quoted(cell)}; expected {expectation}"


def _without(texts: Any, faults: Faults) -> Any:
    if not faults:
        return texts
    mask = np.zeros(len(texts), dtype=bool)
    mask[list(faults)] = True
    return pc.if_else(pa.array(mask), None, texts)


def _positions(mask: Any) -> list[int]:
    found: list[int] = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    return found


def _broken(cell: str | None) -> bool:
    try:
        (cell or "").encode()
    except UnicodeEncodeError:
        return True
    return False
