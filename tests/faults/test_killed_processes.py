"""Workers that are killed, paused and restarted while a job runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from customers import Customers, File
from harness import LEASE_SECONDS, ROWS, Harness
from trial import Trial

Begin = Callable[[int | str, str], Trial]

# A round trip, so that a COMMIT is under way for long enough to be met.
COMMIT_SECONDS = 0.2


def test_children_are_killed_one_after_the_other(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(1, "SIGKILL a random worker child every second")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    trial.repeatedly(harness.kill_a_child, job_id, every=1.0)
    assert trial.judge(job_id, file).problems == []


def test_the_main_process_of_the_workers_is_killed(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(2, "SIGKILL the worker's main process")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    trial.inject(lambda: harness.signal_main("worker-bulk", signal.SIGKILL))
    trial.fault_ended()
    assert trial.judge(job_id, file).problems == []


def test_a_child_that_sleeps_through_its_lease_is_fenced(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(3, "SIGSTOP a child for longer than its lease, then SIGCONT")
    # Its own time limit would end it when it wakes up; what is tried here is the fence behind that.
    # And it has no proxy before it: what is still under way when it is stopped would begin its finish.
    patient = {"SCOREHOUSE_CHUNK_TIME_LIMIT": "600", "SCOREHOUSE_DRAIN_SECONDS": "60"}
    with harness.extra_worker(SCOREHOUSE_DATABASE_URL=harness.postgres.app_url, **patient) as extra:
        job_id = trial.submit(file)
        sleeper, claim = harness.until(lambda: _stopped_with_a_claim(harness, job_id, extra.pid))
        trial.inject(lambda: None)
        try:
            harness.until(lambda: _chunk(harness, claim).epoch > claim.epoch, seconds=LEASE_SECONDS + 10)
            harness.until(lambda: _chunk(harness, claim).state == "done")
        finally:
            sleeper.send_signal(signal.SIGCONT)
        trial.fault_ended()
        harness.until(lambda: trial.fenced == 1)
        assert trial.judge(job_id, file).problems == []
    assert trial.line.fenced == 1


def test_a_rolling_restart_counts_no_crash(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(4, "SIGTERM the workers of both lanes, in mid-job")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    trial.inject(harness.restart_workers)
    trial.fault_ended()
    assert trial.judge(job_id, file).problems == []
    assert [row.crashes for row in harness.chunks(job_id, "done") if row.crashes] == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGQUIT])
def test_a_second_signal_in_the_middle_of_a_commit(
    second: signal.Signals, begin: Begin, harness: Harness, customers: Customers
) -> None:
    file = customers.file(ROWS // 4)
    trial = begin(5, f"SIGTERM of a worker's main process, then {second.name} while a COMMIT is under way")
    with harness.extra_worker() as extra:
        job_id = trial.submit(file)
        harness.to_postgres.latency = COMMIT_SECONDS
        try:
            for number in (signal.SIGTERM, second):
                if (
                    harness.until(lambda: "ended" if extra.poll() is not None else _commits(harness, extra.pid))
                    == "ended"
                ):
                    break
                trial.inject(lambda number=number: extra.send(number))  # type: ignore[misc]  # mypy knows no default here
            harness.until(lambda: extra.poll() is not None)
        finally:
            harness.to_postgres.heal()
    trial.fault_ended()
    assert trial.judge(job_id, file).problems == []
    assert trial.line.injected == 2, "it had ended before the second signal"


def _commits(harness: Harness, parent: int | None) -> bool:
    """Whether a child has a COMMIT under way: the server has done it, and its answer is not there yet."""
    query = """
        SELECT 1 FROM pg_stat_activity
        WHERE application_name = ANY (:names) AND state = 'idle' AND query = 'COMMIT'
          AND state_change > clock_timestamp() - make_interval(secs => :on_its_way)
    """
    names = [f"worker bulk {child.pid}" for child in psutil.Process(parent).children()]
    return bool(harness.query(query, names=names, on_its_way=COMMIT_SECONDS / 4))


def _stopped_with_a_claim(harness: Harness, job_id: str, parent: int | None) -> tuple[psutil.Process, Any] | None:
    """The child of `parent`, stopped while it scores: its claim is committed and its finish has not begun."""
    for child in psutil.Process(parent).children():
        child.send_signal(signal.SIGSTOP)
        held = [row for row in harness.chunks(job_id, "running") if f":{child.pid}/" in row.owner]
        if held and not harness.in_a_transaction(child.pid):
            return child, held[0]
        child.send_signal(signal.SIGCONT)
    return None


def _chunk(harness: Harness, claim: Any) -> Any:
    query = "SELECT epoch, state FROM chunk WHERE job_id = :job AND number = :number"
    return harness.query(query, job=claim.job_id, number=claim.number)[0]
