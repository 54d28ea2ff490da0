"""JSON as it may be sent: not deeper than anybody needs, and, in a body that is one JSON text, with each member once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

# Records are flat; a cell that is passed through may hold a little more.
MAX_DEPTH = 32

_CONTAINERS = (dict, list)


class DuplicateMember(json.JSONDecodeError):
    """An object has a member twice: which of the two counts would be a guess."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the member {name!r:.100} stands twice in one object; leave one of them out", "", 0)

    def __str__(self) -> str:
        return self.msg


def check_depth(value: Any) -> None:
    """Look level by level, without recursion.

    Raises:
        RecursionError: arrays and objects stand within each other more than `MAX_DEPTH` deep; a parser that could not
            even read them has raised it before.
    """
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) in _CONTAINERS
        ]
        if not level:
            return
    raise RecursionError(f"it is nested more than {MAX_DEPTH} deep")


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`.

    Raises:
        DuplicateMember
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise DuplicateMember(next(name for name, count in counts.items() if count > 1))
    return members
