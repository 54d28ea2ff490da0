"""The client: one object per API and token."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import PurePath
from types import TracebackType
from typing import Any, Literal

from scorehouse_client.audits import AuditCalls
from scorehouse_client.bodies import Source
from scorehouse_client.destination import Output, check, opened
from scorehouse_client.errors import ConnectionFailed, ScorehouseApiError
from scorehouse_client.following import Following
from scorehouse_client.jobs import InputFormat, JobCalls, JobProgress, Priority, ResultFormat
from scorehouse_client.models import ModelCalls
from scorehouse_client.quota import QuotaCalls
from scorehouse_client.resources import Job
from scorehouse_client.tables import TableCalls
from scorehouse_client.tokens import TokenCalls
from scorehouse_client.trainings import TrainingCalls
from scorehouse_client.transport import BytesProgress, Request, Transport

DOWNLOAD_ATTEMPTS = 4
FORMATS: Mapping[str, ResultFormat] = {".parquet": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson"}


class Client(JobCalls, TableCalls, ModelCalls, AuditCalls, TrainingCalls, TokenCalls, QuotaCalls):
    """Calls of the API at `url` with a bearer `token`; safe to share between threads.

    `timeout` (s) bounds the wait for an answer that should come at once; what the API is asked to hold comes on top.
    `retry_for` (s) bounds what one call spends on retries; 0 switches them off.
    """

    def __init__(self, url: str, token: str | None, *, timeout: float = 30.0, retry_for: float = 60.0) -> None:
        self._transport = Transport(url, token, timeout, retry_for)

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def health(self) -> dict[str, Any]:
        """What `GET /health` says; also when it answers 503, which tells what is missing.

        Raises:
            ConnectionFailed, ScorehouseApiError
        """
        response = self._transport.answer(Request("GET", "/health"))
        try:
            content = json.loads(response.data)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ScorehouseApiError(response.status, "No health report", "is this the URL of a Scorehouse API?")
        return content

    def download(  # each is a field of the request
        self,
        job_id: str,
        output: Output,
        *,
        format: ResultFormat | None = None,
        include_inputs: bool = False,
        formulas: Literal["keep"] | None = None,
        progress: BytesProgress | None = None,
    ) -> None:
        """Write the results to a path (complete or not at all) or to a file open for bytes.

        The format is told by the path's name (.parquet, .ndjson, .jsonl, else CSV) unless given. A download that
        breaks off starts again when what was written can be taken back.

        Raises:
            ScorehouseApiError, ConnectionFailed, OutputFailed
        """
        wanted = format or format_of(output)
        with opened(output) as (file, can_restart):
            for left in reversed(range(DOWNLOAD_ATTEMPTS if can_restart else 1)):
                try:
                    for block in self.results(job_id, wanted, include_inputs, formulas, progress):
                        file.write(block)
                    break
                except ConnectionFailed:
                    if not left:
                        raise
                    file.seek(0)
                    file.truncate()

    def score_file(  # each is a field of a request or follows one of its stages
        self,
        source: Source,
        model: str,
        output: Output,
        *,
        version: str | None = None,
        key_column: str | None = None,
        delimiter: str | None = None,
        input_format: InputFormat | None = None,
        metadata: Mapping[str, str] | None = None,
        priority: Priority | None = None,
        as_of: str | None = None,
        idempotency_key: str | None = None,
        format: ResultFormat | None = None,
        include_inputs: bool = False,
        formulas: Literal["keep"] | None = None,
        timeout: float | None = None,
        on_upload: BytesProgress | None = None,
        on_job: JobProgress | None = None,
        on_download: BytesProgress | None = None,
    ) -> Job:
        """Upload a file, wait for its job (at most `timeout` s) and write the results: `submit_file`, `wait`, `download`.

        Results that go to a path as CSV or NDJSON are fetched while the job still runs.

        Returns the finished job. One that failed or was canceled writes no output; look at its `state`.

        Raises:
            JobNotFinished, ScorehouseApiError, ConnectionFailed, SourceFailed, OutputFailed
        """
        check(output)
        job = self.submit_file(
            source,
            model,
            version=version,
            key_column=key_column,
            delimiter=delimiter,
            input_format=input_format,
            metadata=metadata,
            priority=priority,
            as_of=as_of,
            idempotency_key=idempotency_key,
            progress=on_upload,
        )
        if on_job is not None:
            on_job(job)
        wanted = format or format_of(output)
        if wanted == "parquet" or not isinstance(output, str | PathLike):
            job = self.wait(job.id, timeout, on_job)
            if job.scored:
                self.download(
                    job.id,
                    output,
                    format=wanted,
                    include_inputs=include_inputs,
                    formulas=formulas,
                    progress=on_download,
                )
            return job
        with contextlib.suppress(_NothingToKeep), opened(output) as (file, _):
            results = Following(
                self._transport,
                job.id,
                file,
                format=wanted,
                include_inputs=include_inputs,
                formulas=formulas,
                progress=on_download,
            )

            def follow(job: Job) -> None:
                if on_job is not None:
                    on_job(job)
                results.fetch(job)

            job = self.wait(job.id, timeout, follow)
            if not job.scored:
                raise _NothingToKeep
        return job


class _NothingToKeep(Exception):
    """The job failed or was canceled: what was written of its results goes."""


def format_of(output: Output) -> ResultFormat:
    """The result format that a path's name asks for."""
    if not isinstance(output, str | PathLike):
        return "csv"
    return FORMATS.get(PurePath(output).suffix.lower(), "csv")
