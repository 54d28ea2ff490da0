"""The tables of `db/tables.py`: columns, types and constraints from the metadata, comments from the source above each."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from db import tables
from generated.cell import cell

_POSTGRES = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


@dataclass
class _Comments:
    table: str = ""
    columns: dict[str, str] = field(default_factory=dict)


def markdown() -> str:
    """A section per table, in the order of the module."""
    comments = _comments()
    found = [each for name in comments if isinstance(each := getattr(tables, name), sa.Table)]
    return "\n\n".join(_section(table, comments[table.name]) for table in found)


def _section(table: sa.Table, comments: _Comments) -> str:
    lines = [f"## {table.name}", ""]
    if comments.table:
        lines += [comments.table, ""]
    lines += ["| column | type | | meaning |", "| --- | --- | --- | --- |"]
    for column in table.columns:
        type_ = column.type.compile(_POSTGRES).lower()
        meaning = cell(comments.columns.get(column.name, ""))
        lines.append(f"| `{column.name}` | {type_} | {', '.join(_notes(column))} | {meaning} |".replace("|  |", "| |"))
    rules = list(_rules(table))
    return "\n".join([*lines, *(["", *rules] if rules else [])])


def _notes(column: sa.Column[object]) -> Iterator[str]:
    if column.primary_key:
        yield "primary key"
    elif not column.nullable:
        yield "not null"
    for key in column.foreign_keys:
        yield f"→ `{key.target_fullname}`"
    if isinstance(column.server_default, sa.DefaultClause):
        yield f"default `{getattr(column.server_default.arg, 'text', column.server_default.arg)}`"


def _rules(table: sa.Table) -> Iterator[str]:
    """Checks and unique constraints; indexes that only make queries fast are left to the source."""
    for constraint in sorted(table.constraints, key=lambda each: str(each.name)):
        if isinstance(constraint, sa.CheckConstraint):
            yield f"- check `{constraint.sqltext}`"
        elif isinstance(constraint, sa.UniqueConstraint):
            yield f"- unique {', '.join(f'`{column.name}`' for column in constraint.columns)}"
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        if index.unique:
            where = index.dialect_options["postgresql"]["where"]
            which = "" if where is None else f" where `{where}`"
            yield f"- unique {', '.join(f'`{column.name}`' for column in index.columns)}{which}"


def _comments() -> dict[str, _Comments]:
    """By table, in the order of the source."""
    source = inspect.getsource(tables)
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if ast.unparse(node.value.func) != "sa.Table":
            continue
        columns = {
            str(each.args[0].value): _above(lines, each.lineno)
            for each in node.value.args
            if isinstance(each, ast.Call)
            and ast.unparse(each.func) in {"sa.Column", "_timestamp"}
            and isinstance(each.args[0], ast.Constant)
        }
        found[ast.unparse(node.targets[0])] = _Comments(_above(lines, node.lineno), columns)
    return found


def _above(lines: list[str], number: int) -> str:
    """The comment that ends on the line above, as one text."""
    first = number - 1
    while lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(line.strip().removeprefix("#").strip() for line in lines[first : number - 1])
