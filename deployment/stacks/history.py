"""Who switched when, from what to what and why: a file of JSON lines that only grows."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from deployment.stacks.checks import Check
from deployment.stacks.config import Name

Kind = Literal["switch", "rollback"]


@dataclass(frozen=True)
class Entry:
    """One attempt to switch.

    `seconds` is all of it; `outcome` is `switched`, or `refused` with the reason in the last of the checks.
    """

    at: str
    who: str
    kind: Kind
    from_stack: Name | None
    to_stack: Name
    why: str | None
    outcome: Literal["switched", "refused"]
    seconds: float
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.outcome == "switched"

    def as_json(self) -> dict[str, Any]:
        return {name.removesuffix("_stack"): value for name, value in asdict(self).items()}


def append(file: Path, entry: Entry) -> None:
    with file.open("a") as opened:
        opened.write(json.dumps(entry.as_json()) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


def last_switched(file: Path) -> dict[str, Any] | None:
    """The last entry that changed which stack answers, None if there is none."""
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:  # the end of a line that a full disk or a crash cut off
            continue
        if entry["outcome"] == "switched" and entry["from"] != entry["to"]:
            return entry
    return None
