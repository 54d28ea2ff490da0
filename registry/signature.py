"""The signature of a model version: which columns it takes, of which type, and what it answers.

It is inferred from the reference by `registry.examine`, stored as JSON with the version, and read by the API, which
checks the columns of an upload against it before it answers 202. No ML library is imported here.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from errors import InvalidInput, Problem

ColumnType = Literal["number", "integer", "boolean", "category", "text", "timestamp"]
Frame = Literal["object", "category", "array"]
Label = bool | int | float | str

#: How alike two names must be (0 to 1) for one to be suggested in place of the other.
LIKENESS = 0.7
OTHER_DELIMITERS = {";": "';'", "\t": "a tab", "|": "'|'"}


class Column(BaseModel):
    """One input of a model; `docs/reference/cells.md` says which spellings of a cell each type takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: ColumnType
    nullable: bool = False
    categories: list[str] | None = Field(None, description="category: the values of the reference, sorted")
    minimum: float | None = Field(None, description="number, integer: smallest value of the reference")
    maximum: float | None = Field(None, description="number, integer: largest value of the reference")


class Output(BaseModel):
    """What a model answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["classification", "regression"]
    classes: list[Label] | None = Field(None, description="in the order of the probabilities; None for regression")
    class_type: Literal["integer", "number", "text", "boolean"] | None = None
    positive: Label | None = Field(None, description="of a binary classifier, the class that `probability` is about")
    has_probability: bool = False
    class_from: Literal["probabilities", "predict"] = Field(
        "predict", description="whether the class may be read off the probabilities, or needs a second model call"
    )


class Signature(BaseModel):
    """Columns in the order in which the model was fitted on them, and the output (None: not examined yet).

    `frame` is what the model takes: "object" a DataFrame with strings as objects, "category" a DataFrame with pandas
    categories, "array" a float64 array without column names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: list[Column]
    key: str | None = None
    target: str | None = None
    output: Output | None = None
    frame: Frame = "object"

    @model_validator(mode="after")
    def _names_are_unique(self) -> Signature:
        if len(set(self.names)) != len(self.names):
            raise ValueError("two columns of a signature have the same name")
        return self

    @cached_property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def check_columns(self, names: Sequence[str]) -> None:
        """Check the header of a file; further columns are fine, they are passed through.

        Raises:
            InvalidInput: with one Problem (`#/columns/NAME`) for each column that is missing.
        """
        missing = self._missing(names)
        if not missing:
            return
        problems = [self.problem(name, names, pointer_to(name)) for name in missing]
        wrong = _probable_delimiter(names)
        if wrong:
            detail = (
                f"the header is a single column that contains {wrong}: "
                f"if {wrong} separates the columns, set the `delimiter` parameter to it"
            )
            problems.insert(0, Problem(detail, "#/query/delimiter"))
            raise InvalidInput(detail, problems)
        raise InvalidInput(_summary(missing, "the header"), problems)

    def check_record(self, record: Mapping[str, Any], pointer: str = "#/inputs") -> None:
        """Check the names of one JSON record, which stands at `pointer` in the body.

        A nullable column must be named too, with `null` as its value: a forgotten column is not a null.

        Raises:
            InvalidInput: with one Problem (`POINTER/NAME`) for each column that is missing.
        """
        missing = self._missing(record.keys())
        if missing:
            problems = [self.problem(name, list(record), f"{pointer}/{_escape(name)}") for name in missing]
            raise InvalidInput(_summary(missing, "the record"), problems)

    def problem(self, name: str, names: Sequence[str], pointer: str) -> Problem:
        """That column `name` is missing from `names`, with the nearest name that is there and not expected."""
        expected = set(self.names)
        nearest = _nearest(name, [other for other in names if other not in expected])
        hint = f"; did you mean '{nearest}' (present, but not expected)?" if nearest is not None else ""
        return Problem(f"column '{name}' is missing{hint}", pointer)

    def _missing(self, names: Collection[str]) -> list[str]:
        present = set(names)
        return [name for name in self.names if name not in present]


def pointer_to(column: str) -> str:
    """Where a Problem about a column points."""
    return f"#/columns/{_escape(column)}"


def _summary(missing: list[str], where: str) -> str:
    names = ", ".join(f"'{name}'" for name in missing)
    what = "column is" if len(missing) == 1 else "columns are"
    return f"{len(missing)} {what} missing from {where}: {names}; add or rename them and submit again"


def _nearest(name: str, others: Sequence[str]) -> str | None:
    """The name among `others` that is most like `name`; case, spaces, underscores and hyphens do not count."""
    by_form = {_form(other): other for other in reversed(others)}
    matches = difflib.get_close_matches(_form(name), by_form, n=1, cutoff=LIKENESS)
    return by_form[matches[0]] if matches else None


def _form(name: str) -> str:
    return "".join(char for char in name.casefold() if not char.isspace() and char not in "_-")


def _probable_delimiter(names: Sequence[str]) -> str | None:
    if len(names) != 1:
        return None
    return next((told for char, told in OTHER_DELIMITERS.items() if char in names[0]), None)


def _escape(name: str) -> str:
    """A name as one token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
