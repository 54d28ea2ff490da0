"""What JSON may look like, wherever it is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.strict_json import parse_json
from errors import InvalidInput
from records.cutter import NdjsonCutter, pieces
from records.json_text import MAX_DEPTH, DuplicateMember, check_depth, object_of


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth - 1):
        found = [found]
    return found


def test_depth_is_bounded_exactly() -> None:
    check_depth(nested(MAX_DEPTH))
    check_depth(1)
    check_depth({"a": {"b": nested(MAX_DEPTH - 2)}, "c": "[[[["})
    for deep in (nested(MAX_DEPTH + 1), {"a": nested(MAX_DEPTH)}, nested(100_000)):
        with pytest.raises(RecursionError, match=f"more than {MAX_DEPTH} deep"):
            check_depth(deep)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 2_000, 1_000_000])
def test_what_is_too_deep_is_told_so_whoever_reads_it(depth: int) -> None:
    body = b"[" * depth + b"]" * depth
    with pytest.raises(InvalidInput, match=f"at most {MAX_DEPTH}"):
        parse_json(body)
    with pytest.raises(InvalidInput, match="Line 1 is not JSON"):
        list(pieces(NdjsonCutter(), [b'{"a": ' + body[:400_000] + b"}\n"]))


def test_a_member_that_stands_twice_is_named() -> None:
    with pytest.raises(InvalidInput, match="the member 'x' stands twice"):
        parse_json(b'[{"a": {"x": 1, "y": 2, "x": 1}}]')
    with pytest.raises(DuplicateMember):
        json.loads('{"": 1, "": 2}', object_pairs_hook=object_of)
    assert parse_json(b'[{"x": 1}, {"x": 2}]') == [{"x": 1}, {"x": 2}]
