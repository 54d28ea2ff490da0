"""The hot statements, one named file each, so that they can be read, explained and measured as they run."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import sqlalchemy as sa


@cache
def statement(name: str) -> sa.TextClause:
    """The statement in `NAME.sql`, with `:name` parameters."""
    return sa.text(files(__package__).joinpath(f"{name}.sql").read_text())
