"""The documentation site: `make docs` builds it from the Markdown of the whole repository, warnings are errors.

The source folder is the root of the repository, so that a link works on a Git forge and here alike. Pages of the reference
say `<!-- generated: NAME -->` where `generated` writes what the code knows.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import generated

project = "Scorehouse"
author = "the authors of Scorehouse"
html_title = "Scorehouse"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "client/README.md",
    "benchmarks/reports/*.md",
    "tests/faults/reports/*.md",
    "tests/fuzz/reports/*.md",
    "tests/soak/reports/*.md",
]
exclude_patterns = [".*", "build", "**/__pycache__"]
# Headings get the anchors that a forge gives them; a link to one that is not there is a warning.
myst_heading_anchors = 4
smartquotes = False  # an option keeps its two hyphens
html_theme = "furo"
html_extra_path = ["site"]  # index.html, which leads to the first page
html_copy_source = False
html_show_sourcelink = False

_PLACE = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)


def setup(app: Sphinx) -> None:
    app.connect("source-read", _fill)


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = _PLACE.sub(lambda place: generated.PARTS[place[1]](), source[0])
