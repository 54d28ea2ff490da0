"""The one terminal that all processes of a stack share: whole lines only, each with the name of who wrote it."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

NAME_WIDTH = 18
COLOURS = (36, 32, 35, 33, 34, 96, 92)
BOLD = 1


class Console:
    """Writes to `stream` (standard output) until nobody reads it any more, and then goes on without a word."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._lock = threading.Lock()
        self._colours: dict[str, int] = {}
        self.coloured = (
            self._stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
        )

    def log(self, name: str, line: str) -> None:
        """One line that the process `name` wrote."""
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        self._write(f"{self._painted(f'{name:{NAME_WIDTH}} |', colour)} {line}")

    def say(self, text: str) -> None:
        """Something that the stack itself has to say; may have several lines."""
        self._write("\n".join(self._painted(line, BOLD) for line in text.splitlines()))

    def _painted(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured else text

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        printable = text.encode(encoding, "replace").decode(encoding)
        with self._lock:
            try:
                self._stream.write(printable + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # a closed pipe or terminal is no reason to stop the stack
                self._stream = open(os.devnull, "w")  # noqa: SIM115, PTH123 - until the process ends
