"""The routes of jobs: submit, poll, list, cancel, retry, and the downloads of results and errors."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from flask import Response, jsonify, request, stream_with_context
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from sqlalchemy import Connection

from api import downloads, events, places, retries, schemas, uploads
from api.auth import caller, scope
from api.bodies import FilePart, Multipart, blocks
from api.context import Context, context
from api.problems import from_domain
from api.rendering import job_documents
from api.strict_json import parse_json
from api.submission import submit_records
from api.upload_places import upload_place
from api.uploads import Upload
from db import jobs
from db.engine import read, transaction
from db.ids import lower_bound, uuid7
from db.retention import horizon
from errors import Gone, InvalidInput, NotFound, Problem, TooLarge, UnsupportedMedia
from records.inflate import inflated

blueprint = APIBlueprint("jobs", __name__, url_prefix="/v1/jobs", abp_tags=[Tag(name="jobs")])

_MAX_WAIT = 60.0
_UPLOAD_FORMATS = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
}
# Of a form, the file's beginning that is held: one that ends within it may have its fields in any order.
_HELD_BYTES = 4 * 1024 * 1024
_MUCH = 1 << 62  # where another bound counts
_RESULT_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d+)\"?", re.IGNORECASE)


@blueprint.post("", responses={200: schemas.Job, 202: schemas.Job})
@scope("jobs:write")
def submit(query: schemas.UploadQuery, header: schemas.SubmitHeader, raw: schemas.UploadBody) -> Response:
    """Submit a job.

    JSON for one record or many; CSV or NDJSON, raw or as multipart, for a file. 202 means that all of it is stored.
    """
    seconds = preferred_wait(request.headers.get("Prefer"))
    if request.mimetype == "application/json":
        wanted = schemas.JobRequest.model_validate(read_json(context().settings.max_json_bytes))
        job_id, over = submit_and_wait(wanted, header.idempotency_key, seconds)
    else:
        job_id = _accept_file(query, header)
        over = seconds > 0 and wait_for(context(), caller().tenant, job_id, seconds)
    response = job_response(job_id, status=200 if over else 202)
    if seconds > 0:
        response.headers["Preference-Applied"] = f"wait={seconds:g}"
    return response


@blueprint.get("", responses={200: schemas.JobList})
@scope("jobs:read")
def listing(query: schemas.JobListQuery) -> Response:
    """List jobs, newest first."""
    with transaction(context().engine) as connection:
        rows = jobs.page(
            connection,
            caller().tenant,
            state=query.state,
            model_name=query.model,
            after=query.after,
            limit=query.limit + 1,
        )
        shown = job_documents(context(), connection, rows[: query.limit])
    return jsonify({"jobs": shown, "next": shown[-1]["id"] if len(rows) > query.limit else None})


@blueprint.get("/<uuid:id>", responses={200: schemas.Job})
@scope("jobs:read")
def show(path: schemas.JobPath, query: schemas.JobQuery) -> Response:
    """Poll a job; with `wait`, answer when it ends."""
    if query.wait > 0:
        wait_for(context(), caller().tenant, path.id, query.wait)
    return job_response(path.id)


@blueprint.post("/<uuid:id>/cancel", responses={200: schemas.Job})
@scope("jobs:write")
def cancel(path: schemas.JobPath) -> Response:
    """Cancel a job now; rows that are scored already are kept."""
    with transaction(context().engine) as connection:
        jobs.cancel(connection, caller().tenant, path.id)
    return job_response(path.id)


@blueprint.post("/<uuid:id>/retry", responses={202: schemas.Job})
@scope("jobs:write")
def retry(path: schemas.JobPath) -> Response:
    """Submit the failed rows of a job again, as a job of their own."""
    body = request.get_data(cache=False)
    wanted = schemas.RetryRequest.model_validate(parse_json(body) if body.strip() else {})
    job_id = retries.retry(context(), caller(), path.id, version=wanted.version)
    return job_response(job_id, status=202)


@blueprint.get(
    "/<uuid:id>/results", responses=schemas.stream("text/csv", "application/x-ndjson", "application/vnd.apache.parquet")
)
@scope("jobs:read")
def results(path: schemas.JobPath, query: schemas.ResultQuery) -> Response:
    """Stream the results in input order, as far as they are there without a gap."""
    row = _row(path.id)
    engine, with_inputs, keep = context().engine, query.include == "inputs", query.formulas == "keep"
    if with_inputs:
        jobs.check_inputs(row)
    spans, through = downloads.finished(engine, row, query.after_row)
    if query.format == "parquet":
        if query.after_row:
            raise InvalidInput("a Parquet file cannot go on after a row; leave after_row out")
        body = downloads.results_parquet(engine, row, spans, include_inputs=with_inputs)
    elif query.format == "ndjson":
        body = downloads.results_ndjson(engine, row, spans, include_inputs=with_inputs)
    else:
        stream = downloads.results_with_inputs_csv if with_inputs else downloads.results_csv
        body = stream(engine, row, spans, header=query.after_row == 0, keep_formulas=keep)
    response = _stream(body, _RESULT_TYPES[query.format], f"{path.id}.{query.format}")
    response.headers["Results-Through-Row"] = str(through)
    return response


@blueprint.get("/<uuid:id>/errors", responses=schemas.stream("text/csv", "application/x-ndjson"))
@scope("jobs:read")
def errors(path: schemas.JobPath, query: schemas.ErrorQuery) -> Response:
    """Stream the row errors in input order."""
    row = _row(path.id)
    if query.format == "ndjson":
        return _stream(
            downloads.errors_ndjson(context().engine, row), "application/x-ndjson", f"{path.id}-errors.ndjson"
        )
    body = downloads.errors_csv(context().engine, row, keep_formulas=query.formulas == "keep")
    return _stream(body, "text/csv", f"{path.id}-errors.csv")


@blueprint.get("/<uuid:id>/events", responses=schemas.stream("text/event-stream"))
@scope("jobs:read")
def watch(path: schemas.JobPath) -> Response:
    """Server-sent events: the job whenever its counters or its state have changed, until it ends."""
    _row(path.id)
    stream = events.stream(context(), caller().tenant, path.id, request.headers.get("Last-Event-ID"))
    return Response(
        stream_with_context(stream),
        mimetype="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


@blueprint.errorhandler(NotFound)
def removed(error: NotFound) -> Response:
    """A job's id tells when it was made: one from before the horizon of retention is gone, whoever it belonged to."""
    job_id, days = (request.view_args or {}).get("id"), context().settings.retention_days
    if isinstance(job_id, UUID) and job_id.version == 7 and job_id < lower_bound(horizon(days)):
        return from_domain(Gone(f"job {job_id} is older than {days} days: it was removed by retention"))
    return from_domain(error)


def submit_and_wait(
    wanted: schemas.JobRequest, idempotency_key: str | None, seconds: float, *, endpoint: str = "jobs"
) -> tuple[UUID, bool]:
    """Store records as a job; returns its id and whether it ended within `seconds`.

    Whoever waits for a new job listens before it is stored, and need not look.
    """
    shared, new_id = context(), uuid7()
    if seconds <= 0:
        return submit_records(shared, caller(), wanted, idempotency_key, endpoint=endpoint), False
    with shared.completions.expecting(new_id, own_records=True) as event:
        job_id = submit_records(shared, caller(), wanted, idempotency_key, endpoint=endpoint, job_id=new_id)
        if job_id == new_id and event is not None and wanted.inputs:
            tenant = caller().tenant
            return job_id, shared.completions.wait(event, seconds, lambda: _is_over(shared, tenant, job_id))
    return job_id, wait_for(shared, caller().tenant, job_id, seconds)


def wait_for(shared: Context, tenant: str, job_id: UUID, seconds: float) -> bool:
    """Whether the job ended within `seconds`."""

    def is_over() -> bool:
        return _is_over(shared, tenant, job_id)

    with shared.completions.expecting(job_id) as event:
        return is_over() or (event is not None and shared.completions.wait(event, seconds, is_over))


def _is_over(shared: Context, tenant: str, job_id: UUID) -> bool:
    return read(shared.engine, lambda connection: jobs.is_terminal(connection, tenant, job_id))


def preferred_wait(prefer: str | None) -> float:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most 60; 0 if there is none."""
    found = _PREFER_WAIT.search(prefer or "")
    return min(float(found.group(1)), _MAX_WAIT) if found else 0.0


def read_json(limit: int) -> Any:
    """The JSON body of the current request.

    Raises:
        TooLarge, InvalidInput
    """
    encoding = request.headers.get("Content-Encoding")
    body = bytearray()
    for block in inflated(blocks(request), encoding=encoding, max_bytes=_MUCH, max_inflation=_MUCH):
        body += block
        if len(body) > limit:
            raise TooLarge(f"the JSON body is longer than the {limit:,} bytes allowed; upload a file as CSV or NDJSON")
    return parse_json(bytes(body))


def _accept_file(query: schemas.UploadQuery, header: schemas.SubmitHeader) -> UUID:
    kind = request.mimetype
    if kind == "multipart/form-data":
        with upload_place():
            return _accept_multipart(query, header)
    if kind not in _UPLOAD_FORMATS:
        raise UnsupportedMedia(
            f"the content type {kind or '(none)'!r} is not taken here; send application/json, text/csv, "
            "application/x-ndjson or multipart/form-data"
        )
    upload = Upload(_UPLOAD_FORMATS[kind], query, header.idempotency_key, request.headers.get("Content-Encoding"))
    with upload_place():
        return uploads.receive(context(), caller(), upload, blocks(request))


def _accept_multipart(query: schemas.UploadQuery, header: schemas.SubmitHeader) -> UUID:
    form = Multipart(request)
    part = form.next_file()
    if part is None or part.name != "file":
        detail = "the form has no file named `file`; a part is a file when it has a filename"
        raise InvalidInput(detail, [Problem("is required", "#/file")])
    body = _file_of(form, part)
    fields = {name: value for name, value in form.fields.items() if value}
    merged = schemas.UploadQuery.model_validate({**query.model_dump(exclude_unset=True), **fields})
    name = part.filename.lower().removesuffix(".gz")
    kind = "ndjson" if name.endswith((".ndjson", ".jsonl")) else "csv"
    upload = Upload(kind, merged, header.idempotency_key, None)
    return uploads.receive(context(), caller(), upload, body)


def _file_of(form: Multipart, part: FilePart) -> Iterable[bytes]:
    """The blocks of the form's file; what follows it is read before the last one is passed on."""
    held: list[bytes] = []
    for block in part.blocks:
        held.append(block)
        if sum(map(len, held)) > _HELD_BYTES:
            return itertools.chain(held, part.blocks, _end_of(form, dict(form.fields)))
    form.check_nothing_after(form.fields)
    return held


def _end_of(form: Multipart, known: Mapping[str, str]) -> Iterator[bytes]:
    form.check_nothing_after(known)
    yield from ()


def job_response(job_id: UUID, status: int = 200) -> Response:
    """The document of a job; it is read together with those that others ask for at the same time."""
    shared, tenant = context(), caller().tenant
    document = shared.documents.do(tenant, job_id, lambda job_ids: _documents(shared, tenant, job_ids))
    if document is None:
        raise NotFound(f"there is no job {job_id}")
    response = jsonify(document)
    response.status_code = status
    if status == 202:
        response.headers["Location"] = document["links"]["self"]
    if document["state"] not in jobs.TERMINAL:
        response.headers["Retry-After"] = "1"
    return response


def _documents(shared: Context, tenant: str, job_ids: Sequence[UUID]) -> list[dict[str, Any] | None]:
    def ask(connection: Connection) -> list[dict[str, Any] | None]:
        found = jobs.several(connection, tenant, job_ids)
        documents = dict(zip(found, job_documents(shared, connection, list(found.values())), strict=True))
        return [documents.get(job_id) for job_id in job_ids]

    return read(shared.engine, ask)


def _row(job_id: UUID) -> Any:
    with transaction(context().engine) as connection:
        return jobs.get(connection, caller().tenant, job_id)


def _stream(body: Iterator[bytes], mimetype: str, filename: str) -> Response:
    place = places.take(context().places)
    try:
        first = next(body, b"")  # what fails before the first byte is still answered with a problem
        response = Response(
            stream_with_context(itertools.chain([first], body)),
            mimetype=mimetype,
            headers={"Content-Disposition": f'attachment; filename="{filename}"'},
        )
    except BaseException:
        place.give_back()
        raise
    response.call_on_close(place.give_back)
    return response
