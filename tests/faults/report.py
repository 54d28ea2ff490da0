"""The report of a session: what was injected into how many rows, and what it cost. JSON for programs, a table for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEAD = ("fault", "what", "rows", "injected", "job s", "recovery s", "lost", "duplicated", "fenced", "rescued", "holds")


def write(lines: list[dict[str, Any]], folder: Path) -> None:
    """faults.json and faults.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(lines, key=lambda line: (isinstance(line["fault"], str), line["fault"]))
    (folder / "faults.json").write_text(json.dumps(ordered, indent=2) + "\n")
    (folder / "faults.md").write_text(f"# Faults\n\n{total(ordered)}\n\n{table(ordered)}")


def total(lines: list[dict[str, Any]]) -> str:
    rows, injected, lost, duplicated = (
        sum(line[name] for line in lines) for name in ("rows", "injected", "lost", "duplicated")
    )
    return f"{rows:,} rows, {injected:,} faults injected: {lost} rows lost, {duplicated} duplicated."


def table(lines: list[dict[str, Any]]) -> str:
    return "\n".join([_row(HEAD), _row(["---"] * len(HEAD)), *(_row(_cells(line)) for line in lines), ""])


def _cells(line: dict[str, Any]) -> list[str]:
    names = ("fault", "what", "rows", "injected", "job_seconds", "recovery_seconds", "lost", "duplicated", "fenced")
    cells = ["" if line[name] is None else str(line[name]) for name in (*names, "rescued")]
    if line["rows"] and line["job_seconds"] is None:
        return [*cells, "not judged: the trial broke off"]
    return [*cells, "yes" if not line["problems"] else "; ".join(line["problems"])]


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
