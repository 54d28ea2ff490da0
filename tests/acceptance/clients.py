"""Clients that never retry: they submit, poll, upload and download without a pause, and count what did not work."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import urllib3
from toys import COLUMNS, Toy, customers, to_csv
from urllib3.exceptions import HTTPError

FILE_ROWS = 200
SECONDS = 60.0
OVER = {"succeeded", "completed_with_errors", "failed", "canceled"}


class Clients:
    """Threads at one URL; every answer is checked, and every failure kept."""

    def __init__(
        self, url: str, token: str, toy: Toy, *, predicting: int = 4, polling: int = 2, uploading: int = 1
    ) -> None:
        self.failures: list[str] = []
        self.requests = 0
        self.releases: Counter[str] = Counter()
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._pool = urllib3.PoolManager(maxsize=32, retries=False, timeout=SECONDS)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        frame = customers(FILE_ROWS, seed=11)
        self._records = json.loads(frame[["id", *COLUMNS]].to_json(orient="records"))
        self._predictions = toy.predict(frame)[0]
        self._file = to_csv(frame[["id", *COLUMNS]])
        works = [(self._predict, predicting), (self._submit_and_poll, polling), (self._upload_and_download, uploading)]
        self._threads = [
            threading.Thread(target=self._repeat, args=(work, number), daemon=True)
            for work, count in works
            for number in range(count)
        ]

    @contextmanager
    def running(self) -> Iterator[Clients]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(SECONDS)

    def wait_for_answers(self, count: int) -> None:
        """Until so many more requests were answered."""
        wanted, deadline = self.requests + count, time.monotonic() + SECONDS
        while self.requests < wanted:
            assert time.monotonic() < deadline, f"{self.requests} of {wanted} requests; failures: {self.failures[:5]}"
            time.sleep(0.02)

    def _repeat(self, work: Callable[[int], None], number: int) -> None:
        while not self._ended.is_set():
            number = (number + 7) % FILE_ROWS
            try:
                work(number)
            except (HTTPError, AssertionError, KeyError, ValueError) as exc:
                self.failures.append(f"{work.__name__}: {exc!r}")

    def _predict(self, number: int) -> None:
        found = self._call("POST", "/predict?model=toy", self._records[number], status=200)
        assert (found["key"], found["prediction"]) == (self._records[number]["id"], self._predictions[number])

    def _submit_and_poll(self, number: int) -> None:
        inputs = dict(self._records[number])
        job = self._call("POST", "/v1/jobs", {"model": "toy", "key": inputs.pop("id"), "inputs": inputs}, status=202)
        job = self._end_of(job)
        assert job["result"]["prediction"] == self._predictions[number], job

    def _upload_and_download(self, _number: int) -> None:
        job = self._call("POST", "/v1/jobs?model=toy&key_column=id", self._file, status=202)
        job = self._end_of(job)
        rows = self._call("GET", f"/v1/jobs/{job['id']}/results?format=ndjson", status=200, lines=True)
        assert [(row["id"], row["prediction"]) for row in rows] == [
            (record["id"], prediction) for record, prediction in zip(self._records, self._predictions, strict=True)
        ]

    def _end_of(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        deadline = time.monotonic() + SECONDS
        while job["state"] not in OVER:
            assert time.monotonic() < deadline, job
            job = self._call("GET", f"/v1/jobs/{job['id']}?wait=5", status=200)
        assert job["state"] == "succeeded", job
        return job

    def _call(self, method: str, path: str, body: Any = None, *, status: int, lines: bool = False) -> Any:
        headers, data = dict(self._headers), None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = "text/csv" if isinstance(body, bytes) else "application/json"
        answer = self._pool.request(method, self._url + path, body=data, headers=headers)
        with self._lock:
            self.requests += 1
            self.releases[answer.headers.get("Scorehouse-Release", "none")] += 1
        assert answer.status == status, f"{method} {path}: {answer.status} {answer.data[:300]!r}"
        return [json.loads(line) for line in answer.data.splitlines()] if lines else json.loads(answer.data)
