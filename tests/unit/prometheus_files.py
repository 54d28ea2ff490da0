"""The files of Prometheus as tests read them, and promtool."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import programs

ROOT = programs.ROOT
FOLDER = ROOT / "monitoring" / "prometheus"
ALERTING = FOLDER / "alerting.rules.yml"
RECORDING = FOLDER / "recording.rules.yml"

_RULE = re.compile(r"^( +)- (?:alert|record): (\S+)\n((?:^\1  .*\n)+)", re.MULTILINE)
_EXPRESSION = re.compile(r"^( *)expr: (?:\|\n((?:^\1  .*\n)+)|(.+)\n)", re.MULTILINE)


def rules(file: Path) -> dict[str, str]:
    """The text of each rule by its name. The files keep to a plain layout, so that no YAML library is needed."""
    text = file.read_text()
    found = {name: textwrap.dedent(body) for _, name, body in _RULE.findall(text)}
    assert len(found) == len(re.findall(r"- (?:alert|record):", text)), "a rule is laid out in a way that is not read"
    return found


def expressions(file: Path) -> dict[str, str]:
    """The expression of each rule by its name."""
    found = {name: _EXPRESSION.findall(f"{body}\n") for name, body in rules(file).items()}
    return {name: textwrap.dedent(block) or line for name, [(_, block, line)] in found.items()}


def promtool(*arguments: str | Path) -> str:
    """Run promtool, as `programs.run` does."""
    return programs.run("promtool", *arguments, path=None, hint="Debian has it in the package `prometheus`")
