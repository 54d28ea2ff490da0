"""Requests and answers as pydantic models: what is checked on the way in, and what the OpenAPI document shows."""

from __future__ import annotations

import json
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
from flask_openapi3.models import RawModel
from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, Json, field_validator, model_validator

from deployment.gate import Gate

Priority = Literal["low", "normal", "high"]
JobState = Literal["queued", "running", "succeeded", "completed_with_errors", "failed", "canceled"]
Lane = Literal["interactive", "bulk"]

MODEL_NAME = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
LONGEST_KEY = 1000  # characters of a record key
_PRE_RELEASE = r"(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
# Without build metadata: versions that differ in nothing else would have the same precedence.
VERSION = rf"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?$"


def storable(text: str) -> str:
    """Raises ValueError for text that Postgres cannot hold."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("holds a NUL or a lone surrogate, which is no text; remove it")
    return text


def stream(*kinds: str) -> dict[str | int | HTTPStatus, type[pydantic.BaseModel] | dict[Any, Any] | None]:
    """What the OpenAPI document says of an answer that is no JSON: its content types."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {"200": {"description": "A stream", "content": dict.fromkeys(kinds, schema)}}


Name = Annotated[str, Field(pattern=MODEL_NAME, description="letters, digits, `_.-`, at most 63")]
SemanticVersion = Annotated[str, Field(pattern=VERSION, max_length=64, description="semantic version, like 1.2.0")]
ColumnName = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(storable)]
Reason = Annotated[str, Field(max_length=1000), AfterValidator(storable)]
Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64), AfterValidator(storable)],
        Annotated[str, Field(max_length=512), AfterValidator(storable)],
    ],
    Field(max_length=16, description="at most 16 pairs of text, kept with the job"),
]
AsOf = Annotated[
    AwareDatetime,
    Field(description="the time that the rows stand for, if it is not now: audits put them into its window"),
]
Record = dict[str, Any]


class BaseModel(pydantic.BaseModel):
    """A model whose JSON schema is made once: flask-openapi3 asks for it at every request, and it takes milliseconds."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if args or kwargs:
            return super().model_json_schema(*args, **kwargs)
        if cls not in _json_schemas:
            _json_schemas[cls] = super().model_json_schema()
        return _json_schemas[cls]


_json_schemas: dict[type[BaseModel], dict[str, Any]] = {}


class Closed(BaseModel):
    """A misspelt member is refused, not passed over."""

    model_config = ConfigDict(extra="forbid")


class JobRequest(Closed):
    """One record or many, as JSON."""

    model: Name
    inputs: Record | list[Record] = Field(description="one record, or a list of them")
    version: SemanticVersion | None = Field(None, description="default: the version in production")
    key: str | None = Field(None, max_length=1000, description="your own id of the record, when `inputs` is one")
    keys: list[Annotated[str, Field(max_length=1000)]] | None = Field(None, description="one id per record")
    key_column: ColumnName | None = Field(None, description="the member of each record that is its key")
    metadata: Metadata = Field(default_factory=dict)
    priority: Priority = "normal"
    as_of: AsOf | None = None

    @field_validator("inputs", mode="before")
    @classmethod
    def _records(cls, value: Any) -> Any:
        """One sentence about what is wrong, where a union would tell one for each of its members."""
        records = value if isinstance(value, list) else [value]
        for place, record in enumerate(records, 1):
            if not isinstance(record, dict):
                where = f"; entry {place} of the list is none" if isinstance(value, list) else ""
                raise ValueError(f"must be a record (a JSON object) or a list of records{where}")  # noqa: TRY004 - pydantic takes a ValueError
            for name in record:
                try:
                    storable(name)
                except ValueError as exc:
                    raise ValueError(f"record {place} has a member whose name {exc}") from exc
        return value

    @model_validator(mode="after")
    def _keys_fit(self) -> JobRequest:
        if sum(value is not None for value in (self.key, self.keys, self.key_column)) > 1:
            raise ValueError("give only one of `key`, `keys` and `key_column`")
        if isinstance(self.inputs, list):
            if self.key is not None:
                raise ValueError("`key` goes with one record; give `keys` with a list of inputs")
            if self.keys is not None and len(self.keys) != len(self.inputs):
                raise ValueError(
                    f"`keys` has {len(self.keys)} entries and `inputs` {len(self.inputs)}; they must match"
                )
        elif self.keys is not None:
            raise ValueError("`keys` goes with a list of inputs; give `key` with one record")
        return self


class UploadQuery(BaseModel):
    """What goes with an uploaded file."""

    model: Name | None = Field(None, description="required for uploads")
    version: SemanticVersion | None = None
    key_column: ColumnName | None = Field(None, description="default: the key of the model's signature, if present")
    delimiter: str = Field(",", description="one character, or `tab`")
    priority: Priority = "normal"
    metadata: str | None = Field(None, description="a JSON object of text pairs")
    as_of: AsOf | None = None


class MetadataQuery(BaseModel):
    """What the text of `metadata` must say."""

    metadata: Metadata


class UploadBody(RawModel):
    """A CSV file with a header row, or one JSON object per line; streamed, `Content-Encoding: gzip` allowed."""

    mimetypes: list[str] = ["application/json", "text/csv", "application/x-ndjson", "multipart/form-data"]


class IdempotencyHeader(BaseModel):
    idempotency_key: str | None = Field(
        None, alias="Idempotency-Key", min_length=1, max_length=255, description="makes a repeated submission safe"
    )


class SubmitHeader(IdempotencyHeader):
    prefer: str | None = Field(None, alias="Prefer", description="`wait=N`: answer when the job ends, N <= 60 s")


class JobPath(BaseModel):
    id: UUID


class JobQuery(BaseModel):
    wait: float = Field(0, ge=0, le=60, description="seconds to wait for the job's end")


class JobListQuery(BaseModel):
    state: JobState | None = None
    model: Name | None = None
    after: UUID | None = Field(None, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=500)


class ResultQuery(BaseModel):
    format: Literal["csv", "ndjson", "parquet"] = "csv"
    include: Literal["inputs"] | None = Field(None, description="`inputs`: your own columns first, text untouched")
    formulas: Literal["neutralise", "keep"] = Field(
        "neutralise", description="what happens to text that a spreadsheet would run as a formula"
    )
    after_row: int = Field(
        0,
        ge=0,
        description="go on after this row, which the header Results-Through-Row of the answer before told; "
        "CSV comes without its header line then. Not for Parquet",
    )


class ErrorQuery(BaseModel):
    format: Literal["csv", "ndjson"] = "csv"
    formulas: Literal["neutralise", "keep"] = "neutralise"


class RetryRequest(Closed):
    version: SemanticVersion | None = Field(None, description="default: the version that the job was pinned to")


class Rows(BaseModel):
    total: int
    succeeded: int
    errored: int
    canceled: int
    pending: int


class SingleResult(BaseModel):
    """The score of one record."""

    prediction_id: str = Field(description="names this prediction, for labels")
    key: str | None
    prediction: Any
    probability: list[float] | None = Field(description="one per class, in the order of the signature's classes")
    confidence: float | None
    model_version: str
    timestamp: datetime


class Links(BaseModel):
    self: str
    results: str
    errors: str
    events: str
    cancel: str
    retry: str


class Job(BaseModel):
    id: UUID
    kind: Literal["single", "batch"]
    model: str
    model_version: str
    digest: str
    lane: Lane
    state: JobState
    rows: Rows
    progress: float
    rows_per_second: float | None
    eta_seconds: float | None
    queue_position: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime
    inputs_removed_at: datetime | None = Field(
        description="when retention took the inputs, which may be before the job"
    )
    as_of: datetime | None
    metadata: dict[str, str]
    parent: UUID | None = Field(description="the job whose failed rows this one retries")
    error: str | None
    result: SingleResult | None = Field(None, description="of a single that succeeded; a batch has none")
    links: Links


class JobList(BaseModel):
    jobs: list[Job]
    next: UUID | None


class PredictQuery(BaseModel):
    model: Name | None = Field(None, description="default: the configured default model, or the only one deployed")
    version: SemanticVersion | None = None


class RecordBody(RawModel):
    """A flat JSON record, its members are the model's inputs; `customer_id` or the signature's key is its key."""

    mimetypes: list[str] = ["application/json"]


class RecordListBody(RawModel):
    """A JSON list of flat records."""

    mimetypes: list[str] = ["application/json"]


class Prediction(BaseModel):
    model_config = ConfigDict(extra="allow")

    prediction: Any
    probability: list[float] | None
    confidence: float | None
    model_version: str
    timestamp: datetime


class PredictionBatch(BaseModel):
    predictions: list[Prediction | dict[str, Any]]
    batch_size: int


class ModelPath(BaseModel):
    model: Name


class NewLabel(Closed):
    """The truth about one record key or one prediction."""

    key: Annotated[str, Field(min_length=1, max_length=LONGEST_KEY), AfterValidator(storable)] | None = None
    prediction_id: str | None = Field(None, description="as a prediction's result names it: JOB:ROW")
    label: bool | int | float | Annotated[str, Field(max_length=1000), AfterValidator(storable)]
    observed_at: AwareDatetime | None = Field(
        None, description="when the truth was seen; default: now. The newest wins"
    )


class LabelQuery(BaseModel):
    model: Name
    delimiter: str = Field(",", description="of CSV: one character, or `tab`")


class LabelBody(RawModel):
    """A JSON list of labels, or a CSV with the columns `key` or `prediction_id`, `label` and, if wanted, `observed_at`."""

    mimetypes: list[str] = ["application/json", "text/csv"]


class RejectedLabel(BaseModel):
    line: int = Field(description="physical line of the CSV, or place in the JSON list, from 1")
    detail: str


class LabelCounts(BaseModel):
    """Of the keys and predictions that labels came for, those that have a prediction, and those that wait for theirs."""

    received: int
    matched: int
    unmatched: int
    replaced: int = Field(description="labels that took the place of an earlier one")
    stale: int = Field(description="labels that were older than another one of the same record")
    rejected: int
    rejections: list[RejectedLabel] = Field(description="the first hundred")


class HistoryQuery(BaseModel):
    model: Name
    key: Annotated[str, Field(min_length=1, max_length=1000)]
    limit: int = Field(20, ge=1, le=200)


class PastPrediction(BaseModel):
    prediction_id: str
    job: UUID
    row: int
    key: str
    inputs: dict[str, Any] | None = Field(description="as they were sent; None when retention removed them")
    prediction: Any
    probability: list[float] | None
    model_version: str
    scored_at: datetime
    as_of: datetime | None
    label: str | None
    observed_at: datetime | None


class History(BaseModel):
    """What became of one record, the newest first."""

    model: str
    key: str
    predictions: list[PastPrediction]


Window = Annotated[str, Field(pattern=r"^[1-9]\d{0,3}[hdw]$", description="a length of time: `24h`, `7d`, `4w`")]


class AuditQuery(BaseModel):
    window: Window | None = Field(
        None, description="the last audit of a window of this length; default: the last audit"
    )


class AuditRequest(Closed):
    kind: Literal["drift", "accuracy", "domain"]
    window: Window = "24h"
    end: AwareDatetime | None = Field(None, description="where the window ends; default: now")
    version: SemanticVersion | None = Field(None, description="default: the version in production")
    alert: bool = Field(False, description="let what is found move the model's alerts, as scheduled audits do")


class AuditPath(BaseModel):
    id: UUID


AuditStatus = Literal["ok", "warn", "critical", "advisory", "insufficient_data", "provisional"]


class _AuditDocument(BaseModel):
    model: str
    model_version: str
    window: dict[str, datetime]
    status: AuditStatus
    audited_at: datetime


class ColumnDrift(BaseModel):
    name: str = Field(description="of the column; `prediction` and `probability` are those of the model")
    type: str
    statistic: str
    value: float | None
    warn: float
    critical: float
    p_value: float | None
    significant: bool
    status: AuditStatus
    details: dict[str, Any]


class DriftDocument(_AuditDocument):
    """What a drift audit found."""

    rows: int
    columns: list[ColumnDrift]


class MetricValue(BaseModel):
    value: float
    low: float = Field(description="of the 95 % interval")
    high: float


class VersionAccuracy(BaseModel):
    version: str
    scored: int
    labelled: int
    metrics: dict[str, float]


class AccuracyDocument(_AuditDocument):
    """What an accuracy audit found."""

    scored: int
    labelled: int
    unknown: int = Field(description="labels of a class that the model does not have, or that are no number")
    coverage: float
    metrics: dict[str, MetricValue]
    estimated: dict[str, MetricValue] = Field(description="from the scores alone")
    estimate_retired: bool = Field(description="the labels disagree with the estimate")
    reference: dict[str, float]
    worse: dict[str, Literal["warn", "critical"]] = Field(description="metrics that are worse than the reference")
    by_version: list[VersionAccuracy] = Field(description="each version of the model with labels in the window")


class AuditLinks(BaseModel):
    self: str
    report: str = Field(description="a page of HTML, once the audit is done")


class Audit(BaseModel):
    id: UUID
    kind: str
    model: str
    model_version: str
    state: Literal["queued", "running", "done", "failed"]
    status: str | None
    window: dict[str, datetime]
    created_at: datetime
    finished_at: datetime | None
    error: str | None
    document: dict[str, Any] | None = Field(description="the result, as GET …/drift and …/accuracy give it")
    links: AuditLinks


class AuditHistoryQuery(BaseModel):
    kind: Literal["drift", "accuracy", "domain"] = "drift"
    window: Window | None = Field(None, description="only those of windows of this length")
    limit: int = Field(50, ge=1, le=500)


class AuditList(BaseModel):
    audits: list[Audit]


class AuditPolicy(Closed):
    """How a model is audited by schedule."""

    every_hours: int = Field(1, ge=1, le=744)
    window_hours: int = Field(24, ge=1, le=8784)
    enabled: bool = True
    tolerance: float = Field(0.05, gt=0, le=1, description="how much worse than the reference accuracy may be")
    horizon_days: int | None = Field(None, ge=1, le=3660, description="after this long without a label …")
    negative_label: str | None = Field(None, max_length=1000, description="… this is the truth")

    @model_validator(mode="after")
    def _both(self) -> AuditPolicy:
        if (self.horizon_days is None) != (self.negative_label is None):
            raise ValueError("`horizon_days` and `negative_label` go together")
        return self


class AlertQuery(BaseModel):
    model: Name | None = None
    state: Literal["pending", "firing", "acknowledged", "suppressed", "resolved", "ok"] | None = Field(
        None, description="default: all that are open"
    )
    limit: int = Field(100, ge=1, le=500)


class AlertPath(BaseModel):
    id: UUID


class SuppressRequest(Closed):
    until: AwareDatetime


class AlertEvent(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    at: datetime
    from_: str = Field(alias="from")
    to: str
    by: str
    deliveries: list[dict[str, Any]] | None
    next_attempt_at: datetime | None = Field(description="when the channels that failed are tried again")


class Alert(BaseModel):
    id: UUID
    model: str
    model_version: str
    column: str
    check: str
    state: str
    severity: str | None
    value: float | None
    created_at: datetime
    changed_at: datetime
    events: list[AlertEvent] | None = Field(description="of a single alert: its transitions, newest first")


class AlertList(BaseModel):
    alerts: list[Alert]


class VersionPath(ModelPath):
    version: SemanticVersion


class DeploymentPath(ModelPath):
    id: UUID


class RegistrationBody(RawModel):
    """`multipart/form-data`: the fields of RegistrationFields, then the files `reference` and `artefact`."""

    mimetypes: list[str] = ["multipart/form-data"]


Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Lineage(BaseModel):
    """Where a version comes from, as whoever registers it says; further members are kept as they are."""

    model_config = ConfigDict(extra="allow")

    training_data: Digest | None = Field(None, description="of the data that the model was fitted on")
    training_rows: int | None = Field(None, ge=0)
    code_revision: Annotated[str, Field(max_length=200), AfterValidator(storable)] | None = None
    parent: SemanticVersion | None = Field(None, description="the version that this one was made from")

    @model_validator(mode="after")
    def _only_declared(self) -> Lineage:
        members = self.model_extra or {}
        found = {"reference_digest", "fitted_with", "examined_with"} & members.keys()
        if found:
            raise ValueError(f"{', '.join(sorted(found))}: found out when the version is examined; leave it out")
        try:
            storable(json.dumps(members, ensure_ascii=False, allow_nan=False))
        except ValueError as exc:
            raise ValueError(f"holds what JSON cannot ({exc})") from exc
        if "\\u0000" in json.dumps(members):
            raise ValueError("holds a NUL, which is no text; remove it")
        return self


class RegistrationFields(Closed):
    """The fields of a registration, before its two files."""

    version: SemanticVersion
    key: ColumnName | None = None
    target: ColumnName | None = None
    runtime: Literal["auto", "sklearn", "onnx"] = "auto"
    quantise_within: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="how far a quantised form may be off: for a probability, and as a share of rows with another class; "
        "for a number in standard deviations of the predictions",
    )
    trust: bool = False
    allow_version_mismatch: bool = Field(False, description="take a model that was fitted with another scikit-learn")
    candidate: bool = Field(False, description="make it the model's candidate when it is registered")
    lineage: Json[Lineage] | None = None
    signature: str | None = Field(None, description="YAML or JSON: columns to take instead of inferred ones")

    @model_validator(mode="after")
    def _has_another_parent(self) -> RegistrationFields:
        if self.lineage is not None and self.lineage.parent == self.version:
            raise ValueError("a version cannot be its own parent; name the version that it was made from")
        return self

    @model_validator(mode="after")
    def _is_quantised_in_onnx(self) -> RegistrationFields:
        if self.quantise_within is not None and self.runtime == "sklearn":
            raise ValueError("what is quantised is run by onnx; leave `runtime` at auto, or `quantise_within` out")
        return self


class DeployRequest(Closed):
    version: SemanticVersion
    why: Reason | None = None
    gate: Gate | None = Field(None, description="compare it with production on the last inputs before it goes live")


class RollbackRequest(Closed):
    why: Reason | None = None


class DeploymentEvent(BaseModel):
    at: datetime
    state: Literal["warming", "validating", "live", "failed"]
    message: str
    by: str


class Deployment(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: UUID
    model: str
    version: str
    kind: Literal["deploy", "rollback"]
    state: Literal["warming", "validating", "live", "failed"]
    from_: str | None = Field(alias="from")
    to: str
    slot: Literal["blue", "green"] | None = Field(description="None: of a release without slots")
    gate: Gate | None
    checks: dict[str, dict[str, Any]] = Field(
        description="what each step has found: `warm_up`, `validation`, and `replay` if there is a gate"
    )
    reasons: list[str] = Field(description="of one that failed")
    by: str
    why: str | None
    created_at: datetime
    finished_at: datetime | None
    events: list[DeploymentEvent] | None = Field(None, description="of a single deployment: what happened, in order")


class DeploymentList(BaseModel):
    deployments: list[Deployment]


class ModelVersion(BaseModel):
    model: str
    version: str
    state: Literal["registering", "registered", "failed"]
    stage: Literal["registering", "failed", "registered", "candidate", "production", "previous", "retired"] = Field(
        description="what became of it: `retired` was in production once and has no alias any more"
    )
    digest: str
    format: str
    runtime: str
    compiled: dict[str, Any] | None = Field(
        description="whether a compiled form scores it, in which `lanes`, how that compares, or the `reason` why not; "
        "likewise of a `quantised` one, and which lanes an accelerator scores"
    )
    seconds_per_row: float | None = Field(
        description="of the model itself in a call of many rows, when it was registered; chunks are cut by it"
    )
    size: int
    signature: dict[str, Any] | None
    metrics: dict[str, Any] | None
    lineage: dict[str, Any] = Field(description="as Lineage, and what was found out when it was examined")
    mismatch_allowed: bool = Field(description="whether another scikit-learn may have fitted it")
    created_at: datetime
    created_by: str
    error: str | None
    deployments: list[Deployment]


class MetricsQuery(BaseModel):
    limit: int = Field(100, ge=1, le=1000, description="of audits")


class MetricsEntry(BaseModel):
    source: Literal["audit", "registration"]
    at: datetime
    audit: UUID | None
    status: AuditStatus | None
    window: dict[str, datetime] | None
    rows: int = Field(description="with a label: of the window, or of the reference")
    metrics: dict[str, dict[str, float]] = Field(description="value, and for audits low and high of the 95 % interval")


class MetricsHistory(BaseModel):
    model: str
    version: str
    metrics: list[MetricsEntry]


class Model(BaseModel):
    name: str
    aliases: dict[str, str | None]
    slots: dict[str, str | None] = Field(description="the versions in the slots `blue` and `green`")
    live_slot: Literal["blue", "green"]
    versions: list[ModelVersion]
    created_at: datetime


class ModelSummary(BaseModel):
    name: str
    production: str | None
    versions: int
    created_at: datetime


class ModelList(BaseModel):
    models: list[ModelSummary]


class HealthQuery(BaseModel):
    release: Literal["self"] | None = Field(
        None, description="`self`: count only the workers of the release and stack that this API belongs to"
    )


class Alive(BaseModel):
    status: Literal["ok"]
    release: str = Field(description="of this API, with its stack if it has a name: `0.2.0+green`")


class Health(BaseModel):
    status: Literal["ok", "unavailable"]
    database: str = Field(description="`ok`, or why the API cannot use it")
    workers: int = Field(description="live worker processes")
    lanes: dict[str, int] = Field(description="how many of them serve each lane")
    models: dict[str, str] = Field(
        description="each production model that the caller may see: `ready`, or what is missing"
    )
    models_missing: int = Field(description="production models, of any tenant, that no live worker holds")
    release: str = Field(description="of this API, with its stack if it has a name: `0.2.0+green`")
    releases: dict[str, int] = Field(description="all live worker processes by their release")


class TrainingRequest(Closed):
    """Ask for a retraining. The same trigger (or Idempotency-Key) again is the same training."""

    trigger: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(storable)] | None = Field(
        None, description="your own name of the reason, such as the id of a pipeline's run"
    )


class TrainingQuery(BaseModel):
    limit: int = Field(50, ge=1, le=500)


class TrainingPath(ModelPath):
    id: UUID


class TrainingTrigger(BaseModel):
    kind: Literal["hand", "schedule", "alert"]
    key: str


class Training(BaseModel):
    """A retraining: `document` holds rows, split, metrics of both, the comparison and the decision."""

    id: UUID
    model: str
    state: Literal["queued", "running", "succeeded", "failed", "skipped"]
    trigger: TrainingTrigger
    champion: str | None = Field(description="the version in production when it began")
    challenger: str | None = Field(description="the version that was trained")
    promoted: bool
    reason: str | None = Field(description="why it was decided so, was skipped or failed")
    document: dict[str, Any] | None
    attempts: int
    by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class TrainingList(BaseModel):
    trainings: list[Training]


class TrainingPolicy(Closed):
    """How a model is retrained."""

    promotion: Literal["manual", "auto-if-better"] = Field(
        "manual", description="whether a challenger that is better on the hold-out is deployed by itself"
    )
    every_days: int | None = Field(None, ge=1, le=366, description="days between scheduled trainings; null: none")
    on_alert: bool = Field(False, description="whether an alert that fires asks for a training")
    min_labelled_rows: int = Field(1_000, ge=1, le=100_000_000, description="with fewer a training is skipped")
    max_rows: int = Field(200_000, ge=1, le=10_000_000, description="labelled rows to take, the latest ones")
    max_age_days: int = Field(365, ge=1, le=36_600, description="how long ago they may have been submitted")
    recipe: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(storable)] | None = Field(
        None, description="null: the champion's recipe, or its estimator fitted again"
    )
