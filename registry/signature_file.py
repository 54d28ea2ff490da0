"""A signature as a file that people edit: YAML (or JSON, which is YAML) with `key`, `target` and `columns`.

`docs/reference/model-packages.md` describes it. What the model answers is not in it: the model decides that. No ML
library is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from errors import InvalidInput, Problem
from registry.row_text import storable
from registry.signature import Column

# A value that is not what its tag says, such as `!!int abc`, ends in whatever Python raises for it.
_NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError, RecursionError)


class EditedSignature(BaseModel):
    """What a registration states about its columns; what it leaves out is taken from the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str | None = None
    target: str | None = None
    columns: list[Column] = Field(min_length=1)

    @field_validator("columns")
    @classmethod
    def _sorted_categories(cls, columns: list[Column]) -> list[Column]:
        for column in columns:
            _check_facts(column)
        return [
            column if column.categories is None else column.model_copy(update={"categories": sorted(column.categories)})
            for column in columns
        ]

    @model_validator(mode="after")
    def _names(self) -> EditedSignature:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"columns are there twice: {', '.join(twice)}; remove one of each")
        if any(storable(name) != name for name in (*names, self.key or "", self.target or "")):
            raise ValueError("a name holds a NUL or a lone surrogate, which is no text; remove it")
        if self.target in names:
            raise ValueError(f"the target '{self.target}' cannot be an input; remove it from the columns")
        return self


def parse(text: str) -> EditedSignature:
    """Read a signature.

    Raises:
        InvalidInput: it is no YAML, or no signature; with one Problem for each place.
    """
    try:
        content = yaml.safe_load(text)
    except _NO_YAML as exc:
        told = "it is nested too deeply" if isinstance(exc, RecursionError) else storable(str(exc))
        raise InvalidInput(
            f"the signature is no YAML: {told}", [Problem("is no YAML; see the detail", "#/signature")]
        ) from exc
    try:
        return EditedSignature.model_validate(content, strict=True)
    except ValidationError as exc:
        problems = [
            Problem(_told(error), "/".join(["#/signature", *map(str, error["loc"])]))
            for error in exc.errors(include_url=False, include_input=False)
        ]
        first = problems[0]
        raise InvalidInput(f"the signature is wrong at {first.pointer}: {first.detail}", problems) from exc


def dump(signature: Mapping[str, Any], about: str) -> str:
    """The text to edit.

    Args:
        signature: as the API shows it.
        about: becomes a comment at the top.
    """
    content = {
        "key": signature.get("key"),
        "target": signature.get("target"),
        "columns": [
            {name: column[name] for name in Column.model_fields if column.get(name) is not None}
            for column in signature["columns"]
        ],
    }
    return f"# {about}\n" + str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))


def _check_facts(column: Column) -> None:
    """Raises ValueError when a column states what its type does not have."""
    if column.categories is not None and column.type != "category":
        raise ValueError(
            f"column '{column.name}' is {column.type} and has categories; remove them, or make it category"
        )
    bounds = [bound for bound in (column.minimum, column.maximum) if bound is not None]
    if bounds and column.type not in ("number", "integer"):
        raise ValueError(f"column '{column.name}' is {column.type} and has a minimum or maximum; remove it")
    if bounds != sorted(bounds):
        raise ValueError(f"the minimum of column '{column.name}' is above its maximum; swap them")
    if any(storable(word) != word for word in column.categories or ()):
        raise ValueError(f"a category of column '{column.name}' holds a NUL or a lone surrogate; remove it")
    if column.categories is not None and len(set(column.categories)) != len(column.categories):
        raise ValueError(f"column '{column.name}' has a category twice; remove one")


def _told(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "string_type":
        return f"{message}; put it in quotes, YAML takes bare words such as no, 1.0 or 2024-01-01 for something else"
    return message
