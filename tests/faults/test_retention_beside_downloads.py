"""Retention beside downloads: each is whole, or breaks off so that its client sees it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from customers import File
from harness import Harness
from trial import Trial

from db import predictions, retention
from db.engine import transaction

Begin = Callable[[int | str, str], Trial]

_END = b"0\r\n\r\n"
LATER = timedelta(days=100)


def test_a_download_breaks_off_when_its_job_is_removed(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(28, "retention removes a job and its day while it is downloaded")
    job_id = trial.submit(file)
    assert trial.judge(job_id, file).problems == []
    downloads = [Download(harness, f"{job_id}/results{query}") for query in ("", "?include=inputs", "?format=ndjson")]
    later = datetime.now(UTC) + LATER
    trial.inject(lambda: retention.remove_jobs(harness.engine, days=90, now=later))
    dropped = retention.drop_days(harness.engine, days=90, now=later)
    with transaction(harness.engine) as connection:
        predictions.ensure_partitions(connection)
    assert f"prediction_block_{datetime.now(UTC):%Y%m%d}" in dropped
    rests = [download.rest() for download in downloads]
    broken = [rest for rest in rests if not rest.endswith(_END)]
    assert broken, "give it more rows: every download was on its way before the job was removed"
    for rest in rests:
        if rest.endswith(_END):
            assert rest.count(b"\n") >= file.expected.rows, "a short download looks whole"
    late = Download(harness, f"{job_id}/results")
    assert b" 404 " in late.head.split(b"\r\n")[0], "no part of it is there any more"
    late.rest()


class Download:
    """One that has got its first bytes, and whose client does not read on yet."""

    def __init__(self, harness: Harness, path: str) -> None:
        parts = urlsplit(str(harness.stack.found["api_url"]))
        token = (harness.stack.data_dir / "admin.token").read_text().strip()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(30)
        self._socket.connect((parts.hostname or "", parts.port or 80))
        lines = f"Host: scorehouse\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        self._socket.sendall(f"GET /v1/jobs/{path} HTTP/1.1\r\n{lines}\r\n".encode())
        self.head = self._socket.recv(1024)

    def rest(self) -> bytes:
        """The head and all that comes until the server closes."""
        received = bytearray(self.head)
        with self._socket:
            try:
                while block := self._socket.recv(65_536):
                    received += block
            except ConnectionResetError:
                pass
        return bytes(received)
