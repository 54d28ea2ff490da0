"""The JSON of a request: one meaning for whatever is taken, and a refusal for the rest."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from errors import InvalidInput
from records.json_text import MAX_DEPTH, DuplicateMember, check_depth, object_of

_LONGEST_INTEGER = 400  # digits; a float holds at most 309
_BEYOND_FLOAT: int = 10**_LONGEST_INTEGER
_TOO_DEEP = (
    f"the body is nested too deeply: at most {MAX_DEPTH} arrays and objects within each other; send flat records"
)


class StrictJson(DefaultJSONProvider):
    """What Flask reads and writes JSON with."""

    ensure_ascii = False
    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return parse_json(s.encode("utf-8", "surrogatepass") if isinstance(s, str) else s)


def install(app: Flask) -> None:
    app.json = StrictJson(app)


def parse_json(body: bytes) -> Any:
    """The JSON value of a body, strictly: UTF-8, no NaN or Infinity, at most `MAX_DEPTH` deep, no member twice.

    Raises:
        InvalidInput: with the line and column of the fault.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=object_of,
        )
        check_depth(value)
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"the body is not UTF-8: byte {exc.start} cannot be decoded; send JSON as UTF-8") from exc
    except DuplicateMember as exc:
        raise InvalidInput(str(exc)) from exc
    except json.JSONDecodeError as exc:
        raise InvalidInput(f"the body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}") from exc
    except RecursionError as exc:
        raise InvalidInput(_TOO_DEEP) from exc
    return value


def _float(text: str) -> float | int:
    """A number beyond a float stays one that JSON can write, so that it costs its own row only (`non_finite`)."""
    value = float(text)
    return value if isfinite(value) else _beyond_float(text)


def _integer(text: str) -> int:
    # Python refuses to convert more than 4,300 digits; those say no more than that the number is out of range.
    return int(text) if len(text) <= _LONGEST_INTEGER else _beyond_float(text)


def _beyond_float(text: str) -> int:
    return -_BEYOND_FLOAT if text.startswith("-") else _BEYOND_FLOAT


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput(f"{name} is not JSON; send null for a value that is missing")
