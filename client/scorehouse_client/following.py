"""Fetching the results of a job while it runs: what is there so far, then what has come since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, Literal
from urllib.parse import quote

from scorehouse_client.errors import ConnectionFailed
from scorehouse_client.resources import Job
from scorehouse_client.transport import BytesProgress, Request, Transport

ATTEMPTS = 4
REACHED = "Results-Through-Row"


class Following:
    """Appends to `file`, which can be truncated, in the order of the rows; CSV or NDJSON."""

    def __init__(
        self,
        transport: Transport,
        job_id: str,
        file: BinaryIO,
        *,
        format: Literal["csv", "ndjson"],
        include_inputs: bool,
        formulas: Literal["keep"] | None,
        progress: BytesProgress | None,
    ) -> None:
        self._transport = transport
        self._path = f"/v1/jobs/{quote(job_id, safe='')}/results"
        self._query = {"format": format, "include": "inputs" if include_inputs else None, "formulas": formulas}
        self._file = file
        self._progress = progress
        self._through = 0  # the last row that was written

    def fetch(self, job: Job) -> None:
        """Append what the job, as it stands, has more than the last time.

        Raises:
            ConnectionFailed: the download broke off again and again.
            ScorehouseApiError
        """
        if not job.scored if job.finished else job.rows.done <= self._through:
            return
        begin = self._file.tell()
        for left in reversed(range(ATTEMPTS)):
            try:
                reached = self._append(begin)
            except ConnectionFailed:
                self._take_back(begin)
                if not left:
                    raise
            else:
                break
        if reached == self._through and not job.finished:
            self._take_back(begin)  # only the header: rows are done, but not the first ones
        self._through = reached

    def _append(self, begin: int) -> int:
        reached = self._through

        def note(headers: Mapping[str, str]) -> None:
            nonlocal reached
            reached = int(headers.get(REACHED, reached))  # an API without it gives all at the end

        def told(received: int, total: int | None) -> None:
            if self._progress is not None:
                self._progress(begin + received, None if total is None else begin + total)

        request = Request("GET", self._path, {**self._query, "after_row": self._through or None}, stream=True)
        for block in self._transport.stream(request, told, note):
            self._file.write(block)
        return reached

    def _take_back(self, begin: int) -> None:
        self._file.seek(begin)
        self._file.truncate()
