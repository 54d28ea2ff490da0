"""Audits and counters beside faults: one result per window and none missing, and no counter that goes back."""

from __future__ import annotations

import itertools
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from customers import Customers, File
from harness import VERSION, Harness
from trial import Trial

from db import audits
from db.audits import Policy, Request
from db.engine import transaction

Begin = Callable[[int | str, str], Trial]

WINDOWS = 24
DURABLE = (
    "scorehouse_rows_scored_total",
    "scorehouse_row_errors_total",
    "ml_predictions_total",
    "scorehouse_chunk_rescues",
)


def test_each_window_is_audited_once_while_the_broker_forgets_and_two_beats_tick(
    begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin("audits", "FLUSHALL every 0.1 s, two beats and workers that restart, while audits run")
    few, end = customers.file(5_000), datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    as_of = end - timedelta(hours=WINDOWS / 2)
    job_id = trial.submit(few, as_of=as_of)
    assert trial.judge(job_id, few).problems == []
    (version,) = harness.query("SELECT id, model_id FROM model_version WHERE version = :v", v=VERSION)
    with harness.another_beat("second"), harness.broker() as broker:
        with transaction(harness.engine) as connection:
            for hours in range(WINDOWS):
                until = end - timedelta(hours=hours)
                window = Request(
                    "drift", version.model_id, version.id, until - timedelta(hours=WINDOWS), until,
                    Policy().configuration, alerting=False,
                )  # fmt: skip
                audits.request(connection, window)
        harness.restart_workers()

        def over() -> bool:
            trial.inject(broker.flushall)
            time.sleep(0.1)
            return not harness.query("SELECT 1 FROM audit_run WHERE state IN ('queued', 'running')")

        harness.until(over)
    runs = harness.query(
        "SELECT r.window_end, r.state, r.rows, count(c.*) AS checks "
        "FROM audit_run r LEFT JOIN audit_result c ON c.run_id = r.id "
        "WHERE r.version_id = :version AND r.kind = 'drift' GROUP BY r.id",
        version=version.id,
    )
    windows = {end - timedelta(hours=hours) for hours in range(WINDOWS)}
    asked_for = [run for run in runs if run.window_end in windows]
    assert {run.window_end for run in asked_for} == windows
    assert len(asked_for) == WINDOWS
    assert {run.state for run in asked_for} == {"done"}
    assert len({run.checks for run in asked_for}) == 1, "each window has a result for each check"
    # The rows stand for the middle of the day before: the windows that reach there have them all.
    assert {run.rows for run in asked_for if run.window_end - timedelta(hours=WINDOWS) < as_of < run.window_end} == {
        few.expected.rows - len(few.expected.errors)
    }


def test_no_counter_goes_back_when_api_and_workers_are_killed(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin("counters", "SIGKILL the API once and worker children every 0.5 s, while /metrics is read")
    before = rolled_up(harness)
    with watched(harness) as seen:
        job_id = trial.submit(file)
        trial.under_way(job_id)
        old = harness.pids["api"]
        harness.signal_main("api", signal.SIGKILL)
        harness.until(lambda: harness.pids["api"] != old and metrics(harness) is not None)
        trial.repeatedly(harness.kill_a_child, job_id, every=0.5)
        assert trial.judge(job_id, file).problems == []
        after = rolled_up(harness)
        # A fast machine is done after a few readings; what comes after the end must not go back either.
        harness.until(lambda: len(seen) > 10)
    for earlier, later in itertools.pairwise(seen):
        gone_back = {name: (earlier[name], later.get(name)) for name in earlier if later.get(name, -1) < earlier[name]}
        assert gone_back == {}
    scored = file.expected.rows - len(file.expected.errors)
    assert after["scorehouse_rows_scored_total"] - before["scorehouse_rows_scored_total"] == scored


def metrics(harness: Harness) -> dict[str, float] | None:
    """The counters of what is durable, by series; None while the API is away."""
    try:
        with urllib.request.urlopen(f"{harness.stack.found['api_url']}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
    lines = re.findall(r"^(\w+(?:\{[^}]*\})?) ([0-9.e+]+)$", text, re.MULTILINE)
    found = {name: float(value) for name, value in lines if name.startswith(DURABLE)}
    return found or None


def rolled_up(harness: Harness) -> dict[str, float]:
    """The counters when nothing is under way."""
    found: dict[str, float] = harness.until(lambda: metrics(harness))
    return found


@contextmanager
def watched(harness: Harness) -> Iterator[list[dict[str, float]]]:
    """What a Prometheus that asks all the time sees."""
    seen: list[dict[str, float]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            if (found := metrics(harness)) is not None:
                seen.append(found)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
