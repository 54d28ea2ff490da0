"""A mixed load: each kind of client in a thread of its own, for as long as it is wanted, and what became of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from customers import Customers, File
from harness import MODEL, Harness
from verdict import check

from scorehouse_client import Client, ScorehouseClientError

BULK_ROWS = 20_000
LABELS = 500
JOB_SECONDS = 120.0
# Between two turns of a client, so that the machine is busy and not drowned.
PAUSE_SECONDS = 0.25
AUDIT_PAUSE_SECONDS = 5.0


@dataclass
class Told:
    """What the clients saw; `problems` is empty when all of it was as it must be."""

    turns: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    single_seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Load:
    """Clients of one stack. Each is told apart by its name in `Told.turns`."""

    def __init__(self, harness: Harness, customers: Customers) -> None:
        self.told = Told()
        self._harness = harness
        self._file: File = customers.file(BULK_ROWS)
        self._records = [customers.record(row) for row in range(1, 21)]
        self._keys = [line.split(b",", 1)[0].decode() for line in self._file.body.splitlines()[1 : LABELS + 1]]
        self._labels = self._file.expected.predictions[:LABELS]
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The clients work until the block ends, and each to the end of its turn."""
        kinds = (self._upload, self._single, self._cancel, self._label, self._audit)
        threads = [threading.Thread(target=self._repeat, args=(kind,), name=kind.__name__) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(2 * JOB_SECONDS)
                if thread.is_alive():
                    self.told.problems.append(f"the client {thread.name} hangs")

    def _repeat(self, turn: Callable[[Client], float]) -> None:
        name = turn.__name__.removeprefix("_")
        with Client(self._harness.client.url, self._token, retry_for=30) as client:
            while not self._over.is_set():
                pause = PAUSE_SECONDS
                try:
                    pause = turn(client)
                except (ScorehouseClientError, AssertionError) as exc:
                    self._wrong(f"{name}: {type(exc).__name__}: {exc}")
                with self._lock:
                    self.told.turns[name] += 1
                self._over.wait(pause)

    @property
    def _token(self) -> str:
        return (self._harness.stack.data_dir / "admin.token").read_text().strip()

    def _upload(self, client: Client) -> float:
        """A file, its results with the inputs, and the check of every row."""
        job_id = self._submitted(client)
        job = client.wait(job_id, timeout=JOB_SECONDS)
        lines = sum(block.count(b"\n") for block in client.results(job_id, include_inputs=True))
        verdict = check(self._harness.engine, job_id, self._file.expected)
        for problem in verdict.problems:
            self._wrong(f"job {job_id}: {problem}")
        if lines != BULK_ROWS + 1:
            self._wrong(f"job {job_id}, {job.state}: its download has {lines} lines")
        with self._lock:
            self.told.rows += BULK_ROWS
        return PAUSE_SECONDS

    def _single(self, client: Client) -> float:
        began = time.perf_counter()
        record = self._records[len(self.told.single_seconds) % len(self._records)]
        job = client.wait(client.submit(MODEL, record).id, timeout=JOB_SECONDS)
        if job.state != "succeeded":
            self._wrong(f"single {job.id} is {job.state}")
        self.told.single_seconds.append(time.perf_counter() - began)
        return 0.05

    def _cancel(self, client: Client) -> float:
        """A file that is given up when some of it is done, or is over before that."""
        job_id = self._submitted(client)
        self._over.wait(0.3)
        try:
            client.cancel(job_id)
        except ScorehouseClientError as exc:
            if getattr(exc, "status", None) != 409:
                raise
        job = client.wait(job_id, timeout=JOB_SECONDS)
        rows = job.rows
        if rows.succeeded + rows.errored + rows.canceled != rows.total or rows.pending:
            self._wrong(f"job {job_id}, {job.state}: its counters do not balance: {rows}")
        return 4 * PAUSE_SECONDS

    def _label(self, client: Client) -> float:
        labels = [{"key": key, "label": int(label)} for key, label in zip(self._keys, self._labels, strict=True)]
        client.put_labels(MODEL, labels)
        return 4 * PAUSE_SECONDS

    def _audit(self, client: Client) -> float:
        for kind in ("drift", "accuracy"):
            client.audit(MODEL, kind, timeout=JOB_SECONDS)  # type: ignore[arg-type]  # one of its kinds
        return AUDIT_PAUSE_SECONDS

    def _submitted(self, client: Client) -> str:
        from io import BytesIO

        return client.submit_file(BytesIO(self._file.body), MODEL).id

    def _wrong(self, what: str) -> None:
        with self._lock:
            self.told.problems.append(what)


def judge_all(harness: Harness) -> list[str]:
    """A, B, D and E of every job that there is, whoever submitted it; [] when all holds. Nothing may be under way any more."""
    queries: dict[str, str] = {
        "A: jobs that are not over": "SELECT id FROM job WHERE finished_at IS NULL",
        "B: chunks that are in nobody's hands or somebody's": (
            "SELECT job_id AS id FROM chunk WHERE state NOT IN ('done', 'canceled')"
        ),
        "D: jobs without exactly one terminal transition": (
            "SELECT id FROM job WHERE (SELECT count(*) FROM witnessed w WHERE w.job_id = job.id "
            "AND w.new IN ('succeeded', 'completed_with_errors', 'failed', 'canceled')) <> 1"
        ),
        "E: jobs whose counters are not what the tables hold": (
            "SELECT id FROM job WHERE rows_total <> rows_succeeded + rows_errored + rows_canceled OR rows_succeeded <> "
            "(SELECT coalesce(sum(cardinality(predictions)), 0) FROM prediction_block b WHERE b.job_id = job.id) OR "
            "rows_errored <> (SELECT count(*) FROM row_error e WHERE e.job_id = job.id)"
        ),
        "E: tenants who still have open jobs": "SELECT tenant AS id FROM tenant_usage WHERE jobs_open <> 0",
    }
    found: list[str] = []
    for what, query in queries.items():
        rows: list[Any] = harness.query(query)
        if rows:
            found.append(f"{what}: {len(rows)}, the first {rows[0].id}")
    return found
