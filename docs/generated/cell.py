"""A text in a cell of a Markdown table."""

from __future__ import annotations


def cell(text: str) -> str:
    """One line that breaks no table and is no HTML, as a sentence."""
    text = " ".join(text.split()).replace("|", r"\|").replace("<", r"\<").replace("[", r"\[")
    return text if not text or text.endswith((".", "…", "]")) else f"{text}."


def code(text: str) -> str:
    return "`" + text.replace("|", r"\|") + "`"
