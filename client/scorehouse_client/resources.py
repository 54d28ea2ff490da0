"""What the API answers with, as frozen dataclasses.

Each is built from the JSON of the API and keeps it as `raw`: fields that a newer API adds are there, and fields that an
older one lacks are None or empty, so client and API need not be upgraded together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]

FINISHED_STATES = frozenset({"succeeded", "completed_with_errors", "failed", "canceled"})


@dataclass(frozen=True, slots=True)
class Rows:
    """Counts of a job's rows; total = succeeded + errored + canceled + pending."""

    total: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    pending: int = 0

    @classmethod
    def from_json(cls, data: Json) -> Rows:
        return cls(*(int(data.get(name) or 0) for name in ("total", "succeeded", "errored", "canceled", "pending")))

    @property
    def done(self) -> int:
        return self.total - self.pending


@dataclass(frozen=True, slots=True)
class Job:
    """One submission. `progress` runs from 0 to 1, `eta_seconds` is None until it can be told.

    `result` is there for a finished single record only; the results of a batch come from `Client.results`. `parent` is the job
    whose failed rows this one retries.
    """

    id: str
    state: str
    kind: str = "batch"
    model: str = ""
    model_version: str = ""
    digest: str = ""
    lane: str = ""
    rows: Rows = field(default_factory=Rows)
    progress: float = 0.0
    rows_per_second: float | None = None
    eta_seconds: float | None = None
    queue_position: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    inputs_removed_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    error: str | None = None
    result: Json | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> Job:
        return cls(
            id=str(data["id"]),
            state=str(data["state"]),
            **_present(data, "kind", "model", "model_version", "digest", "lane", "progress", "metadata"),
            rows=Rows.from_json(data.get("rows") or {}),
            rows_per_second=data.get("rows_per_second"),
            eta_seconds=data.get("eta_seconds"),
            queue_position=data.get("queue_position"),
            created_at=_time(data.get("created_at")),
            started_at=_time(data.get("started_at")),
            finished_at=_time(data.get("finished_at")),
            expires_at=_time(data.get("expires_at")),
            inputs_removed_at=_time(data.get("inputs_removed_at")),
            parent=data.get("parent"),
            error=_text(data.get("error")),
            result=data.get("result"),
            raw=data,
        )

    @property
    def finished(self) -> bool:
        return self.state in FINISHED_STATES

    @property
    def scored(self) -> bool:
        """It ended well: each row has a prediction or a row error."""
        return self.state in ("succeeded", "completed_with_errors")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An immutable version; `state` is registering, registered or failed, `size` the artefact's bytes.

    `stage` is what became of it: its state until it is registered, then registered, candidate, production, previous or
    retired.
    """

    model: str
    version: str
    state: str = "registered"
    stage: str = "registered"
    digest: str = ""
    format: str = ""
    runtime: str = ""
    size: int | None = None
    signature: Json = field(default_factory=dict, repr=False)
    metrics: Json = field(default_factory=dict)
    lineage: Json = field(default_factory=dict)
    compiled: Json = field(default_factory=dict)
    created_at: datetime | None = None
    created_by: str | None = None
    error: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json, model: str = "") -> ModelVersion:
        return cls(
            model=str(data.get("model") or model),
            version=str(data["version"]),
            **_present(
                data, "state", "stage", "digest", "format", "runtime", "signature", "metrics", "lineage", "compiled"
            ),
            size=data.get("size"),
            created_at=_time(data.get("created_at")),
            created_by=_text(data.get("created_by")),
            error=_text(data.get("error")),
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A model by name; `aliases` maps production, candidate and previous to versions (or None).

    A list of models holds only `version_count`; one model asked for by name holds its `versions`.
    """

    name: str
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    version_count: int = 0
    versions: tuple[ModelVersion, ...] = ()
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> Model:
        versions = data.get("versions") or ()
        listed: Sequence[Json] = () if isinstance(versions, int) else versions
        return cls(
            name=str(data["name"]),
            aliases=data.get("aliases") or {"production": data.get("production")},
            version_count=versions if isinstance(versions, int) else len(listed),
            versions=tuple(ModelVersion.from_json(version, str(data["name"])) for version in listed),
            created_at=_time(data.get("created_at")),
            raw=data,
        )

    @property
    def production(self) -> str | None:
        return self.aliases.get("production")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A switch of a model's production version; `state` runs warming, validating, then live or failed.

    `checks` tells what each step has found so far: `warm_up`, `validation` and, with a gate, `replay`.
    """

    id: str
    model: str
    version: str
    state: str
    from_version: str | None = None
    to_version: str | None = None
    slot: str | None = None
    checks: Mapping[str, Json] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    created_at: datetime | None = None
    finished_at: datetime | None = None
    by: str | None = None
    why: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> Deployment:
        return cls(
            id=str(data["id"]),
            model=str(data.get("model") or ""),
            version=str(data.get("version") or data.get("to") or ""),
            state=str(data["state"]),
            from_version=_text(data.get("from")),
            to_version=_text(data.get("to")),
            slot=_text(data.get("slot")),
            checks=data.get("checks") or {},
            reasons=tuple(_text(reason) or "" for reason in data.get("reasons") or ()),
            created_at=_time(data.get("created_at")),
            finished_at=_time(data.get("finished_at")),
            by=_text(data.get("by")),
            why=_text(data.get("why")),
            raw=data,
        )

    @property
    def finished(self) -> bool:
        return self.state in ("live", "failed")


def _present(data: Json, *names: str) -> dict[str, Any]:
    return {name: data[name] for name in names if data.get(name) is not None}


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None


def _text(value: Any) -> str | None:
    """A sentence from a string or from an object that carries one."""
    if isinstance(value, Mapping):
        value = value.get("detail") or value.get("message") or ", ".join(f"{k}: {v}" for k, v in value.items())
    return None if value is None else str(value)
