"""What the pages of the reference take from the code, as Markdown."""

from __future__ import annotations

from collections.abc import Callable

from generated import commands, http, tables

PARTS: dict[str, Callable[[], str]] = {
    "http": http.markdown,
    "commands": commands.markdown,
    "tables": tables.markdown,
}
