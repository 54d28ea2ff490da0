"""The command line, from Typer's own tree of commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from cli.main import build
from generated.cell import cell, code


def markdown() -> str:
    """A section per word of the command line, in the order of `scorehouse --help`."""
    root = typer.main.get_command(build())
    assert isinstance(root, TyperGroup)
    return "\n\n".join(
        section
        for name, command in root.commands.items()
        for section in _sections(typer.Context(command, info_name=name), command, ("scorehouse", name))
    )


def _sections(context: typer.Context, command: Any, words: tuple[str, ...]) -> Iterator[str]:
    heading = f"{'#' * len(words)} {' '.join(words[1:])}"
    if isinstance(command, TyperGroup):
        yield f"{heading}\n\n{_text(command)}"
        for name, sub in command.commands.items():
            yield from _sections(typer.Context(sub, parent=context, info_name=name), sub, (*words, name))
        return
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [heading, f"    {' '.join(words)} {usage}".rstrip(), _text(command)]
    rows = [record for each in command.params if (record := _row(each, context))]
    if rows:
        parts.append("\n".join(["| | |", "| --- | --- |", *rows]))
    yield "\n\n".join(part for part in parts if part)


def _row(parameter: Any, context: typer.Context) -> str | None:
    if "--help" in parameter.opts:
        return None
    record = parameter.get_help_record(context)
    return None if record is None else f"| {code(record[0])} | {cell(record[1])} |"


def _text(command: Any) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
