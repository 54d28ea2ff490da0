"""Labels: the truth about predictions, as a JSON list or a CSV of any size."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from api import schemas
from api.auth import caller, scope
from api.bodies import blocks
from api.context import context
from api.jobs import read_json
from api.upload_places import upload_place
from db import models
from db.engine import transaction
from db.labels import NewLabel, Staging
from errors import InvalidInput, Problem, UnsupportedMedia
from records.cutter import CsvCutter, pieces
from records.inflate import inflated
from records.piece import Limits
from registry.signature import Output, Signature

blueprint = APIBlueprint("labels", __name__, url_prefix="/v1/labels", abp_tags=[Tag(name="labels")])

_SHOWN = 100
_REMEMBERED = 10_000
_COLUMNS = {"key", "prediction_id", "label", "observed_at"}
_LABEL: TypeAdapter[schemas.NewLabel] = TypeAdapter(schemas.NewLabel)
_TIME: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


class Lines(Protocol):
    """What `csv.reader` returns: its type has no public name."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


@blueprint.post("", responses={200: schemas.LabelCounts})
@scope("labels:write")
def upload(query: schemas.LabelQuery, raw: schemas.LabelBody) -> Response:
    """Feed back labels: idempotent, in any order, the newest observation wins. One that cannot be read costs itself only."""
    reading = _Reading()
    file = nullcontext() if request.mimetype == "application/json" else upload_place()
    with file, transaction(context().engine) as connection:
        row = models.get(connection, caller().tenant, query.model)
        versions = models.versions(connection, row.id)
        reading.output = _output(versions)
        staging = Staging(connection)
        for batch in reading.batches(query):
            staging.add(batch)
        counts = staging.store(caller().tenant, row.id, [version.id for version in versions])
    if reading.rejected and not counts.received:
        raise InvalidInput(
            f"none of the {reading.rejected:,} labels can be read, the first: {reading.rejections[0]['detail']}",
            [Problem(each["detail"], f"#/line/{each['line']}") for each in reading.rejections[:20]],
        )
    return jsonify(
        {
            "received": counts.received + reading.rejected,
            "matched": counts.matched,
            "unmatched": counts.unmatched,
            "replaced": counts.replaced,
            "stale": counts.stale,
            "rejected": reading.rejected,
            "rejections": reading.rejections,
        }
    )


class _Reading:
    """The labels of one request; those that cannot be read are noted."""

    def __init__(self) -> None:
        self.output: Output | None = None
        self.rejected = 0
        self.rejections: list[dict[str, Any]] = []
        self._texts: dict[str, str] = {}

    def batches(self, query: schemas.LabelQuery) -> Iterator[list[NewLabel]]:
        if request.mimetype == "application/json":
            body = read_json(context().settings.max_json_bytes)
            if not isinstance(body, list):
                raise InvalidInput('send a JSON list of labels, such as [{"key": "C-1", "label": 1}]')
            yield list(self._read(enumerate(body, 1)))
        elif request.mimetype in {"text/csv", "application/csv"}:
            yield from self._csv(query)
        else:
            raise UnsupportedMedia("send labels as application/json or text/csv")

    def _csv(self, query: schemas.LabelQuery) -> Iterator[list[NewLabel]]:
        settings = context().settings
        delimiter = "\t" if query.delimiter in {"tab", "\\t"} else query.delimiter
        cutter = CsvCutter(delimiter, Limits.of(settings))
        body = inflated(
            blocks(request),
            encoding=request.headers.get("Content-Encoding"),
            max_bytes=settings.max_upload_bytes,
            max_inflation=settings.max_inflation,
        )
        for piece in pieces(cutter, body):
            header = _checked(cutter.columns or [])
            reader = csv.reader(io.StringIO(piece.data.decode(), newline=""), delimiter=delimiter)
            if "prediction_id" in header:
                yield list(self._read(_numbered(reader, header, piece.first_line)))
            else:
                yield list(self._of_keys(reader, header, piece.first_line))
        _checked(cutter.columns or [])  # also of a file without records

    def _of_keys(self, reader: Lines, header: list[str], first_line: int) -> Iterator[NewLabel]:
        """What `_read` would give, sooner: a million lines may pass here, and most are plainly right.

        A label's text becomes what the same text became before, and what comes out of a CSV can be stored; so only the
        time and the length of the key are left to be checked.
        """
        key_place, label_place = header.index("key"), header.index("label")
        time_place = header.index("observed_at") if "observed_at" in header else None
        for cells in reader:
            text = self._texts.get(cells[label_place]) if len(cells) == len(header) else None
            if text is not None and 0 < len(cells[key_place]) <= schemas.LONGEST_KEY:
                given = "" if time_place is None else cells[time_place]
                if not given or (moment := _moment(given)):
                    yield NewLabel(text, moment if given else None, cells[key_place])
                    continue
            if cells:
                record = (first_line + reader.line_num - 1, _record(header, cells))
                for label in self._read([record]):
                    if len(self._texts) < _REMEMBERED:
                        self._texts[cells[label_place]] = label.label
                    yield label

    def _read(self, records: Iterable[tuple[int, Any]]) -> Iterator[NewLabel]:
        for line, record in records:
            try:
                yield self._label(record)
            except InvalidInput as exc:
                self.rejected += 1
                if len(self.rejections) < _SHOWN:
                    self.rejections.append({"line": line, "detail": str(exc)})

    def _label(self, record: Any) -> NewLabel:
        if not isinstance(record, dict):
            raise InvalidInput(
                f"a label is an object with `key` or `prediction_id`, and `label`; this is {record!r:.60}"
            )
        try:
            given = _LABEL.validate_python(record)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"][:1]) or "the label"
            raise InvalidInput(f"{where}: {first['msg'].removeprefix('Value error, ')}") from exc
        if (given.key is None) == (given.prediction_id is None):
            raise InvalidInput("give either `key` or `prediction_id`")
        text = _text(given.label, self.output)
        if given.prediction_id is None:
            return NewLabel(text, given.observed_at, record_key=given.key)
        job, _, row = given.prediction_id.rpartition(":")
        try:
            job_id, number = UUID(job), int(row)
        except ValueError as exc:
            raise InvalidInput(f"prediction_id: {given.prediction_id!r} is not of the form JOB:ROW") from exc
        if not 0 < number < 2**31:
            raise InvalidInput(f"prediction_id: {given.prediction_id!r} is not of the form JOB:ROW")
        return NewLabel(text, given.observed_at, job_id=job_id, row=number)


def _checked(header: list[str]) -> list[str]:
    """The header of a CSV, if it is one of labels."""
    unknown = [name for name in header if name not in _COLUMNS]
    missing = [] if "label" in header else ["label"]
    if not {"key", "prediction_id"} & set(header):
        missing.append("key")
    if unknown or missing:
        problems = [Problem("is not known here", f"#/columns/{name}") for name in unknown]
        problems += [Problem("is missing", f"#/columns/{name}") for name in missing]
        raise InvalidInput(
            "the columns of labels are `key` or `prediction_id`, `label` and, if wanted, `observed_at`; "
            f"this file has: {', '.join(header[:20])}",
            problems,
        )
    return header


def _moment(text: str) -> datetime | None:
    """None for what is no time with a time zone."""
    try:
        return _TIME.validate_python(text)
    except ValidationError:
        return None


def _numbered(reader: Lines, header: list[str], first_line: int) -> Iterator[tuple[int, Any]]:
    return ((first_line + reader.line_num - 1, _record(header, cells)) for cells in reader if cells)


def _record(header: list[str], cells: list[str]) -> Any:
    """A line as a label's fields; blank cells are left out."""
    if len(cells) != len(header):
        return f"{len(cells)} fields"
    return {name: cell for name, cell in zip(header, cells, strict=True) if cell or name == "label"}


def _output(versions: Any) -> Output | None:
    signatures = [version.signature for version in versions if version.signature is not None]
    return Signature.model_validate(signatures[0]).output if signatures else None


def _text(label: Any, output: Output | None) -> str:
    """A label as it is stored; one that cannot be what the model predicts is refused."""
    text = ("true" if label else "false") if isinstance(label, bool) else str(label).strip()
    if not text:
        raise InvalidInput("label: is blank")
    if output is not None and (output.kind == "regression" or output.class_type in {"integer", "number"}):
        try:
            number = float(text)
        except ValueError as exc:
            raise InvalidInput(f"label: {text[:60]!r} is not a number, which this model predicts") from exc
        if not math.isfinite(number):
            raise InvalidInput(f"label: {text!r} is not a finite number")
        return repr(int(number)) if number.is_integer() and output.class_type == "integer" else repr(number)
    if output is not None and output.class_type == "boolean":
        if text.lower() not in {"true", "false", "1", "0"}:
            raise InvalidInput(f"label: {text[:60]!r} is neither true nor false")
        return "true" if text.lower() in {"true", "1"} else "false"
    return text
