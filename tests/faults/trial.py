"""One fault: inject it while a job runs, wait for the end, judge, and leave a line in the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from customers import File
from harness import LEASE_SECONDS, POISON_ATTEMPTS, Harness
from verdict import check

RECOVERY_SECONDS = LEASE_SECONDS + 10
LONGEST_JOB_SECONDS = 600  # of a million rows, with everything else on two cores


@dataclass
class Line:
    """A line of the report."""

    fault: int | str
    what: str
    rows: int = 0
    injected: int = 0
    recovery_seconds: float | None = None
    job_seconds: float | None = None
    lost: int = 0
    duplicated: int = 0
    fenced: int = 0
    rescued: int = 0
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Trial:
    def __init__(self, harness: Harness, fault: int | str, what: str, seconds: float) -> None:
        self.harness = harness
        self.line = Line(fault, what)
        self.seconds = seconds
        self._fenced, self._rescued = harness.events("fenced"), harness.events("rescued")
        self._in_hand: list[tuple[str, int]] = []
        self._ended_at: Any = None

    @property
    def fenced(self) -> int:
        return self.harness.events("fenced") - self._fenced

    def submit(self, file: File, **more: Any) -> str:
        self.line.rows += file.expected.rows
        return self.harness.submit(file.body, **more)

    def under_way(self, job_id: str, chunks: int = 2) -> None:
        """Wait until some of the job is done."""
        self.harness.until(lambda: self.harness.done(job_id) >= chunks)
        assert not self.harness.is_over(job_id), "the job was over before the fault: give it more rows"

    def repeatedly(self, inject: Callable[[], Any], job_id: str, every: float) -> None:
        """Inject until the job is over, or the time of the trial."""
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline and not self.harness.is_over(job_id):
            self.inject(inject)
            next_at = time.monotonic() + every
            while time.monotonic() < next_at and not self.harness.is_over(job_id):
                time.sleep(0.05)
        self.fault_ended()

    def inject(self, inject: Callable[[], Any]) -> None:
        inject()
        self.line.injected += 1

    def fault_ended(self) -> None:
        """From here on recovery counts: until everything that was in hand now is done."""
        rows = self.harness.query("SELECT job_id, number FROM chunk WHERE state = 'running'")
        self._in_hand = [(str(row.job_id), row.number) for row in rows]
        self._ended_at = self.harness.query("SELECT clock_timestamp() AS now")[0].now

    def judge(self, job_id: str, file: File) -> Line:
        """Wait for the end of a job and hold it against the contract."""
        job = self.harness.client.wait(job_id, timeout=LONGEST_JOB_SECONDS)
        verdict = check(self.harness.engine, job_id, file.expected, poison_attempts=POISON_ATTEMPTS)
        line = self.line
        line.job_seconds = max(line.job_seconds or 0.0, _seconds(job))
        line.lost += verdict.lost
        line.duplicated += verdict.duplicated
        line.problems += verdict.problems
        line.fenced = self.harness.events("fenced") - self._fenced
        line.rescued = self.harness.events("rescued") - self._rescued
        if self._ended_at is not None:
            line.recovery_seconds = self._recovery()
            if line.recovery_seconds > RECOVERY_SECONDS:
                line.problems.append(
                    f"G: recovery took {line.recovery_seconds} s, at most {RECOVERY_SECONDS} are allowed"
                )
        return line

    def _recovery(self) -> float:
        ends = [
            row.finished_at
            for job_id, number in self._in_hand
            for row in self.harness.query(
                "SELECT finished_at FROM chunk WHERE job_id = :job AND number = :number", job=job_id, number=number
            )
        ]
        return max((round((end - self._ended_at).total_seconds(), 2) for end in ends if end is not None), default=0.0)


def _seconds(job: Any) -> float:
    if job.finished_at is None or job.created_at is None:
        return 0.0
    return float(round((job.finished_at - job.created_at).total_seconds(), 2))
