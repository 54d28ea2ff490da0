"""Pages of Markdown as programs: their fenced blocks are run in order, and what they print is held against the page.

    ```sh        run by one bash per page, so that variables stay; a command that fails ends the page
    ```python    run in one namespace per page
    ```text      behind one of these: what it prints. `…` stands for any text within a line, a line `…` for any lines

Blocks of other kinds, and indented ones, are only shown.
"""

from __future__ import annotations

import io
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_SECONDS = 120.0
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
_END = "-- the block has ended --"


@dataclass(frozen=True)
class Block:
    line: int
    kind: str
    code: str
    printed: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        yield Block(text.count("\n", 0, found.start()) + 2, found[1], found[2], found[3])


def matches(expected: str, printed: str) -> bool:
    """Whether `printed` is what a page says; spaces at the ends of lines do not count."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else ".*?".join(map(re.escape, line.rstrip().split("…"))) + "\n"
        for line in expected.strip("\n").splitlines()
    )
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


class Shell:
    """A bash that runs one block after the other, each to its end."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._bash.kill()
        self._bash.communicate()

    def run(self, code: str) -> str:
        """What it prints, errors too.

        Raises:
            AssertionError: a command failed, or the block took too long.
        """
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"set -e\n{{\n{code}\n}} < /dev/null\nprintf '\\n%s\\n' '{_END}'\n")
        self._bash.stdin.flush()
        timer = threading.Timer(BLOCK_SECONDS, self._bash.kill)
        timer.start()
        printed = []
        for line in self._bash.stdout:
            if line == f"{_END}\n":
                timer.cancel()
                return "".join(printed)
            printed.append(line)
        timer.cancel()
        raise AssertionError(f"the block ended with code {self._bash.wait()}:\n{code}\n{''.join(printed)}")


def run_python(code: str, namespace: dict[str, Any]) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), namespace)
    return printed.getvalue()
