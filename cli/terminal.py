"""What commands write: results and JSON on standard output, everything else on standard error.

Texts of users and of the API are never taken as markup, and their control characters are shown instead of sent: a cell of a CSV
file must not steer somebody's terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# rich is imported by what draws with it: a command sends its request before it has anything to say.

# Nobody reads a pipe in 80 columns; cut cells would be lost.
PIPE_WIDTH = 4000


def standard_output() -> Console:
    return _console(sys.stdout)


def standard_error() -> Console:
    return _console(sys.stderr)


def binary_output() -> BinaryIO:
    """Standard output for bytes."""
    return sys.stdout.buffer


def say(text: str, style: str = "") -> None:
    """A sentence for the person at the terminal, on standard error."""
    from rich.text import Text  # noqa: PLC0415  # as said above

    standard_error().print(Text(printable(text), style=style), soft_wrap=True)


def warn(text: str) -> None:
    say(text, style="yellow")


def write_json(value: Any) -> None:
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not utf8, allow_nan=False) + "\n")


def write_json_list(lines: Iterable[bytes]) -> None:
    """NDJSON as one JSON list, however long it is."""
    output = binary_output()
    between = b"[\n"
    for line in lines:
        output.write(between + line)
        between = b",\n"
    output.write(b"\n]\n" if between == b",\n" else b"[]\n")
    output.flush()


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; the first column is never wrapped, so that ids can be copied."""
    from rich.table import Table  # noqa: PLC0415  # as said above
    from rich.text import Text  # noqa: PLC0415  # as said above

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    standard_output().print(table)


def write_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Names and values, one per line; those without a value are left out."""
    from rich.table import Table  # noqa: PLC0415  # as said above
    from rich.text import Text  # noqa: PLC0415  # as said above

    grid = Table.grid(padding=(0, 2))
    for name, value in fields:
        if value not in (None, ""):
            grid.add_row(Text(name, style="bold"), Text(cell(value), overflow="fold"))
    standard_output().print(grid)


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def printable(text: str) -> str:
    """The text with all that is not a letter, sign or space written as an escape; lines stay lines."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a download, without their ends."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _console(stream: TextIO) -> Console:
    from rich.console import Console  # noqa: PLC0415  # as said above

    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
