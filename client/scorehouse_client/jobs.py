"""The calls about jobs: submit, follow, fetch."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import quote

from scorehouse_client.bodies import Source, body_of
from scorehouse_client.errors import JobNotFinished, SourceFailed
from scorehouse_client.resources import Job
from scorehouse_client.transport import BytesProgress, Request, Transport

ResultFormat = Literal["csv", "ndjson", "parquet"]
ErrorFormat = Literal["csv", "ndjson"]
InputFormat = Literal["csv", "ndjson"]
Priority = Literal["low", "normal", "high"]
JobProgress = Callable[[Job], None]

LONGEST_HOLD = 60
# With somebody watching, the API is asked this often (s); without, it holds the request for as long as it may.
WATCH_SECONDS = 1
# An API (or a proxy) that does not hold the request must not be asked in a tight loop.
SHORTEST_POLL = 0.25
MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
OTHER_FORMATS = frozenset({".parquet", ".xlsx", ".xls", ".zip", ".json", ".feather", ".arrow", ".zst", ".bz2", ".xz"})


class JobCalls:
    """Mixed into `Client`."""

    _transport: Transport

    def submit_file(  # each is a field of the request
        self,
        source: Source,
        model: str,
        *,
        version: str | None = None,
        key_column: str | None = None,
        delimiter: str | None = None,
        input_format: InputFormat | None = None,
        metadata: Mapping[str, str] | None = None,
        priority: Priority | None = None,
        as_of: str | None = None,
        idempotency_key: str | None = None,
        progress: BytesProgress | None = None,
    ) -> Job:
        """Upload a CSV or NDJSON file (a path, or a file open for bytes) and return the queued job.

        It is streamed: memory does not grow with the file. The format is told by the name (`.csv`, `.tsv`, `.ndjson`,
        `.jsonl`, each also with `.gz`) and is CSV otherwise; `input_format` overrides it. An upload that breaks off
        is repeated from its start when the source can be rewound; the Idempotency-Key (made here unless given) sees to
        it that this never makes two jobs. `as_of` (RFC 3339) is the time that the rows stand for, if it is not now.

        Raises:
            ScorehouseApiError: the API refused it; `errors` names each column that is wrong.
            ConnectionFailed, SourceFailed
        """
        name = PurePath(source if isinstance(source, str) else str(getattr(source, "name", source)))
        suffix, gzipped = _suffix(name)
        if input_format is None and suffix in OTHER_FORMATS:
            raise SourceFailed(
                f"{name} is neither CSV nor NDJSON (.csv, .tsv, .ndjson, each also with .gz): convert it"
            )
        known = input_format or ("ndjson" if suffix in (".ndjson", ".jsonl") else "csv")
        query = {
            "model": model,
            "version": version,
            "key_column": key_column,
            "delimiter": delimiter or ("\t" if suffix == ".tsv" else None),
            "priority": priority,
            "as_of": as_of,
            "metadata": json.dumps(dict(metadata)) if metadata else None,
        }
        headers = {"Content-Type": MEDIA_TYPES[known], "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if gzipped:
            headers["Content-Encoding"] = "gzip"
        body = body_of(source)
        return Job.from_json(
            self._transport.json(Request("POST", "/v1/jobs", query, headers, body=body, progress=progress))
        )

    def submit(  # each is a field of the request
        self,
        model: str,
        inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        version: str | None = None,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        key_column: str | None = None,
        metadata: Mapping[str, str] | None = None,
        priority: Priority | None = None,
        as_of: str | None = None,
        idempotency_key: str | None = None,
        wait: float | None = None,
    ) -> Job:
        """Submit one record or a list of them; `wait` (s, at most 60) returns the finished job when it ends in time.

        Raises:
            ScorehouseApiError, ConnectionFailed
            ValueError: a value is NaN or infinite, which JSON cannot hold: use None.
        """
        fields = {
            "version": version,
            "key": key,
            "keys": keys,
            "key_column": key_column,
            "metadata": metadata,
            "priority": priority,
            "as_of": as_of,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        body = json.dumps({"model": model, "inputs": inputs, **given}, allow_nan=False, default=_plain_number).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        hold = _hold(wait or 0)
        if hold:
            headers["Prefer"] = f"wait={hold}"
        return Job.from_json(self._transport.json(Request("POST", "/v1/jobs", {}, headers, body=body, hold=hold)))

    def job(self, job_id: str, wait: float | None = None) -> Job:
        """The job as it stands; with `wait` (s, at most 60) the API answers when it has finished or the time is over."""
        hold = _hold(wait or 0)
        return Job.from_json(self._transport.json(Request("GET", _path(job_id), {"wait": hold or None}, hold=hold)))

    def wait(self, job_id: str, timeout: float | None = None, progress: JobProgress | None = None) -> Job:
        """Wait until the job has finished, for at most `timeout` seconds (None: for as long as it takes).

        `progress` is called with the job about once a second, the last time with the finished one.

        Raises:
            JobNotFinished: the time is over.
            ScorehouseApiError, ConnectionFailed
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            asked = time.monotonic()
            job = self.job(job_id, wait=min(WATCH_SECONDS if progress else LONGEST_HOLD, max(0.0, end - asked)))
            if progress is not None:
                progress(job)
            if job.finished:
                return job
            left = end - time.monotonic()
            if left <= 0:
                raise JobNotFinished(job, timeout or 0.0)
            time.sleep(min(left, max(0.0, SHORTEST_POLL - (time.monotonic() - asked))))

    def jobs(self, *, state: str | None = None, model: str | None = None, page_size: int = 100) -> Iterator[Job]:
        """All jobs of the token's tenant, newest first, fetched page by page while they are iterated over."""
        query: dict[str, Any] = {"state": state, "model": model, "limit": page_size, "after": None}
        while True:
            page = self._transport.json(Request("GET", "/v1/jobs", dict(query)))
            yield from map(Job.from_json, page["jobs"])
            query["after"] = page.get("next")
            if not query["after"]:
                return

    def results(
        self,
        job_id: str,
        format: ResultFormat = "csv",
        include_inputs: bool = False,
        formulas: Literal["keep"] | None = None,
        progress: BytesProgress | None = None,
    ) -> Iterator[bytes]:
        """The results in input order, as blocks of bytes; of a running job those that are there so far.

        Text that a spreadsheet would run as a formula is neutralised unless `formulas="keep"`.

        Raises:
            ScorehouseApiError
            ConnectionFailed: also when the download breaks off, so what was iterated over to its end is complete.
        """
        query = {"format": format, "include": "inputs" if include_inputs else None, "formulas": formulas}
        return self._transport.stream(Request("GET", _path(job_id, "/results"), query, stream=True), progress)

    def errors(self, job_id: str, format: ErrorFormat = "csv") -> Iterator[bytes]:
        """The row errors (row, line, key, code, column, message, raw), as blocks of bytes. Raises like `results`."""
        request = Request("GET", _path(job_id, "/errors"), {"format": format}, stream=True)
        return self._transport.stream(request)

    def cancel(self, job_id: str) -> Job:
        """Stop the job; rows that are scored stay scored. Canceling twice is the same as once."""
        return Job.from_json(self._transport.json(Request("POST", _path(job_id, "/cancel"))))

    def retry(self, job_id: str, version: str | None = None) -> Job:
        """A new job of the rows that ended as row errors, and of no others; by the same version unless one is given."""
        body = json.dumps({"version": version}).encode() if version else None
        headers = {"Content-Type": "application/json"} if version else {}
        request = Request("POST", _path(job_id, "/retry"), {}, headers, body=body, repeatable=False)
        return Job.from_json(self._transport.json(request))


def _path(job_id: str, rest: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{rest}"


def _hold(seconds: float) -> int:
    return min(LONGEST_HOLD, math.floor(seconds))


def _suffix(name: PurePath) -> tuple[str, bool]:
    gzipped = name.suffix.lower() == ".gz"
    return (PurePath(name.stem) if gzipped else name).suffix.lower(), gzipped


def _plain_number(value: Any) -> Any:
    """NumPy's scalars and pandas' timestamps, without importing either."""
    for method in ("isoformat", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent as JSON: {value!r}")
