"""What is recorded with a version about its compiled form; `registry.compiled.choice` makes it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from registry.deviation import Deviation

Wanted = Literal["auto", "sklearn", "onnx"]
Lane = Literal["interactive", "bulk"]
Precision = Literal["single", "int8"]
Kind = Literal["original", "compiled", "quantised"]


class Form(NamedTuple):
    """Something that may score a lane; `provider` None: on the processor."""

    kind: Kind
    provider: str | None = None


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


class Against(BaseModel):
    """Seconds of one call with `rows` rows, median of 5, beside those of what would score the lane otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    otherwise: float
    this: float


class Tried(BaseModel):
    """A quantised form beside the original, on the reference; the difference is in the unit of the answer.

    `golden_flips` of the golden rows have another class; there are no more of them in any worker that scores with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str | None = None
    max_difference: float | None = None
    flips: int | None = None
    golden_flips: int | None = None
    seconds: dict[Lane, Against] = {}


class Quantised(BaseModel):
    """`within` is what was stated at the registration, `permitted` the largest difference that this allows.

    `precision` is that of the form which is kept, and scores in `lanes`; without any, `reason` says why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    within: float
    reason: str | None = None
    precision: Precision | None = None
    digest: str | None = None
    size: int | None = None
    lanes: list[Lane] = []
    rows: int | None = None
    permitted: float | None = None
    tried: dict[Precision, Tried] = {}

    @property
    def golden_deviation(self) -> Deviation:
        """The most that golden rows may be off where the form which is kept is loaded."""
        assert self.precision is not None
        assert self.permitted is not None
        return Deviation(self.permitted, self.tried[self.precision].golden_flips or 0)

    def allows(self, found: Deviation) -> bool:
        """On all of the reference."""
        assert self.permitted is not None
        assert self.rows is not None
        return found.max_difference <= self.permitted and found.flips <= self.within * self.rows


class Accelerated(BaseModel):
    """On which provider a lane is scored, because that is faster than the processor: seconds of one call with `rows` rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    rows: int
    processor: float
    accelerator: float


class Compiled(BaseModel):
    """`lanes` are those in which the compiled form scores; without any, `reason` says why.

    Where rows are scored in the order of some columns, because that is faster, `sorted_by` names these.
    `rows` of the reference and `probes` were compared: `flips` of them had another class before ties were left to the
    original, and `max_difference` is that of a probability, or of a value (relative above 1). `quantised` is there if that
    was asked for. What a later release has recorded beside it is not used.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

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
    quantised: Quantised | None = None
    accelerated: dict[Lane, Accelerated] = {}

    def stored(self) -> dict[str, Any]:
        """As JSON; without what says nothing, which workers of the release before this one do not know."""
        new = {"quantised": self.quantised, "accelerated": self.accelerated}
        return self.model_dump(mode="json", exclude={name for name, value in new.items() if not value})

    def forms(self, lane: str) -> list[Form]:
        """What may score a lane in place of the original on the processor, the fastest first."""
        kinds: list[Kind] = []
        if self.quantised is not None and lane in self.quantised.lanes:
            kinds.append("quantised")
        if lane in self.lanes:
            kinds.append("compiled")
        found = [Form(kind) for kind in kinds]
        placed = {str(each): found.provider for each, found in self.accelerated.items()}
        return [Form((*kinds, "original")[0], placed[lane]), *found] if lane in placed else found

    def kind(self, lane: Lane) -> Kind:
        """The form that scores a lane, wherever it runs."""
        forms = self.forms(lane)
        return forms[0].kind if forms else "original"

    def digest_of(self, form: Form, artefact: str) -> str:
        """Of a form's content; that of an original is the artefact's."""
        held = {
            "original": artefact,
            "compiled": self.digest,
            "quantised": None if self.quantised is None else self.quantised.digest,
        }
        digest = held[form.kind]
        assert digest is not None, "a form that scores is stored"
        return digest

    def deviation_of(self, form: Form) -> Deviation | None:
        """By how much, and by how many classes, the golden rows may be off; None: as `registry.golden.check_golden` says."""
        if form.kind != "quantised":
            return None
        assert self.quantised is not None
        return self.quantised.golden_deviation

    @property
    def bytes_stored(self) -> int:
        """Of all forms beside the artefact."""
        return (self.size or 0) + ((self.quantised.size or 0) if self.quantised is not None else 0)
