"""How the demo speaks: numbered steps with their time, the commands it runs, and tables of CSV files."""

from __future__ import annotations

import csv
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table


class Narrator:
    def __init__(self, console: Console, steps: int) -> None:
        self.console = console
        self._steps = steps
        self._number = 0
        self._began = time.perf_counter()

    @contextmanager
    def step(self, title: str, what: str) -> Iterator[None]:
        """A heading, what will happen, the block, and how long it took."""
        self._number += 1
        self.console.rule(f"[bold]{self._number}/{self._steps}  {title}[/bold]", align="left")
        self.console.print(what, style="italic", markup=False)
        began = time.perf_counter()
        yield
        self.console.print(f"done in {time.perf_counter() - began:.1f} s\n", style="green")

    def say(self, text: str) -> None:
        """A paragraph, wrapped to the terminal."""
        self.console.print(text, markup=False)

    def command(self, command: Sequence[str] | str) -> None:
        """A command as it can be copied: never wrapped."""
        text = command if isinstance(command, str) else shlex.join(command)
        self.console.print(f"$ {text}", style="cyan", markup=False, soft_wrap=True)

    def table(self, title: str, file: Path, limit: int, columns: Sequence[str] = ()) -> None:
        """The first `limit` rows of a CSV; of all its columns, unless some are named."""
        rows = list(islice(csv_rows(file), limit))
        shown = list(columns or (rows[0] if rows else ()))
        table = Table(title=title, title_justify="left")
        for name in shown:
            table.add_column(name, no_wrap=name != "message")
        for row in rows:
            table.add_row(*(row.get(name) or "" for name in shown))
        self.console.print(table)

    def end(self) -> None:
        self.console.rule("[bold]All of it worked[/bold]", align="left")
        self.console.print(f"{self._number} steps in {time.perf_counter() - self._began:.0f} s.\n")


def csv_rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(newline="") as opened:
        yield from csv.DictReader(opened)


def shortest(path: Path) -> Path:
    """Relative to where we stand when it is below that: short to read, and still good in a command."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
