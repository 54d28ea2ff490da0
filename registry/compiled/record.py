"""What is recorded with a version about its compiled form; `registry.compiled.choice` makes it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Wanted = Literal["auto", "sklearn", "onnx"]
Lane = Literal["interactive", "bulk"]


class Guards(BaseModel):
    """Columns whose nulls, or whose words beyond the signature's categories, the original scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    null: list[str] = []
    unseen: list[str] = []


class Seconds(BaseModel):
    """Of one call with `rows` rows, median of 5."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    sklearn: float
    onnx: float


class Compiled(BaseModel):
    """`lanes` are those in which the compiled form scores; without any, `reason` says why.

    Where rows are scored in the order of some columns, because that is faster, `sorted_by` names these.
    `rows` of the reference and `probes` were compared: `flips` of them had another class before ties were left to the
    original, and `max_difference` is that of a probability, or of a value (relative above 1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: Wanted
    reason: str | None = None
    digest: str | None = None
    size: int | None = None
    lanes: list[Lane] = []
    guards: Guards = Guards()
    sorted_by: list[str] = []
    rows: int | None = None
    probes: int | None = None
    flips: int | None = None
    max_difference: float | None = None
    seconds: dict[Lane, Seconds] = {}
