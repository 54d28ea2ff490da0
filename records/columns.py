"""The column names of a file: the header of a CSV, the keys of the first NDJSON record."""

from __future__ import annotations

import json
from collections import defaultdict

from errors import InvalidInput, Problem
from records.boundaries import fields
from records.json_text import check_depth

_SHOWN_PROBLEMS = 20
_SHOWN_CHARS = 100


def header_columns(record: bytes, delimiter: str, *, line: int, max_columns: int) -> list[str]:
    """The names in a CSV header, which begins on the physical line `line`.

    Raises:
        InvalidInput: a name is blank or stands there twice, or there are more than `max_columns`.
    """
    names = fields(record, delimiter)
    _check_count(names, f"The header (line {line})", line, max_columns)
    problems = _blank(names, line) + _duplicates(names, line)
    if problems:
        more = f" (and {len(problems) - 1} more problems with the header)" if len(problems) > 1 else ""
        raise InvalidInput(problems[0].detail + more, problems[:_SHOWN_PROBLEMS])
    return names


def record_columns(record: bytes, *, line: int, max_columns: int) -> list[str]:
    """The keys of an NDJSON record, which stands on the physical line `line`.

    Raises:
        InvalidInput: it is no JSON object, has no or more than `max_columns` keys, or a key is blank or no valid text.
    """
    try:
        value = json.loads(record)
        check_depth(value)
    except (ValueError, RecursionError) as exc:
        detail = f"Line {line} is not JSON ({exc}). {_expected(record)}"
        raise InvalidInput(detail, [Problem(detail, f"#/line/{line}")]) from exc
    if not isinstance(value, dict) or not value:
        what = "an empty object" if value == {} else f"{_JSON_TYPES[type(value)]}, not an object"
        detail = f"Line {line} holds {what}. {_expected(record)}"
        raise InvalidInput(detail, [Problem(detail, f"#/line/{line}")])
    names = list(value)
    _check_count(names, f"The record on line {line}", line, max_columns)
    problems = _blank(names, line) + [_not_text(name, line) for name in names if not _is_text(name)]
    if problems:
        raise InvalidInput(problems[0].detail, problems[:_SHOWN_PROBLEMS])
    return names


_JSON_TYPES = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"} | {
    type(None): "null"
}


def _expected(record: bytes) -> str:
    if record.lstrip().startswith((b"[", b"{")):
        return 'Expected one object per line, such as {"age": 42}; `jq -c ".[]"` turns an array into such lines'
    return 'Expected one JSON object per line, such as {"age": 42}'


def _check_count(names: list[str], what: str, line: int, max_columns: int) -> None:
    if len(names) > max_columns:
        detail = (
            f"{what} has {len(names):,} columns, more than the {max_columns:,} allowed: "
            f"column {max_columns + 1} is {_shown(names[max_columns])}. Leave out the columns that the model does not use"
        )
        raise InvalidInput(detail, [Problem(detail, _pointer(names[max_columns], line))])


def _blank(names: list[str], line: int) -> list[Problem]:
    return [
        Problem(
            f"Column {position} of {len(names)} on line {line} has no name; name it or remove the column",
            f"#/line/{line}",
        )
        for position, name in enumerate(names, 1)
        if not name.strip()
    ]


def _duplicates(names: list[str], line: int) -> list[Problem]:
    positions = defaultdict(list)
    for position, name in enumerate(names, 1):
        positions[name].append(str(position))
    return [
        Problem(
            f"The header (line {line}) names the column {_shown(name)} more than once, at positions "
            f"{' and '.join(found)}; rename or remove all but one",
            _pointer(name, line),
        )
        for name, found in positions.items()
        if len(found) > 1 and name.strip()
    ]


def _is_text(name: str) -> bool:
    """Postgres stores no NUL and UTF-8 has no lone surrogates; JSON escapes can write both."""
    return "\0" not in name and not any("\ud800" <= char <= "\udfff" for char in name)


def _not_text(name: str, line: int) -> Problem:
    shown = name.encode("ascii", "backslashreplace").decode().replace("\0", "\\u0000")
    return Problem(
        f'The key "{shown[:_SHOWN_CHARS]}" on line {line} holds a NUL or a lone surrogate; rename it', f"#/line/{line}"
    )


def _shown(name: str) -> str:
    return f'"{name[:_SHOWN_CHARS]}…"' if len(name) > _SHOWN_CHARS else f'"{name}"'


def _pointer(name: str, line: int) -> str:
    if not _is_text(name) or len(name) > _SHOWN_CHARS:
        return f"#/line/{line}"
    return "#/columns/" + name.replace("~", "~0").replace("/", "~1")
