"""Beat that is dead for a long while, and comes back."""

from __future__ import annotations

import shelve
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from customers import File
from harness import MODEL, Harness
from trial import Trial

from db import audits
from db.engine import transaction

Begin = Callable[[int | str, str], Trial]

HOURS = 6
# Longer than a kick and a lease together: had somebody kicked or rescued, it would show.
QUIET_SECONDS = 1.5
GOES_ON_SECONDS = 10.0
# A tick that is lost with its worker comes again after a minute.
CAUGHT_UP_SECONDS = 120.0


def test_beat_is_dead_for_hours(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(
        19, f"beat is dead for {HOURS} hours of audits; the broker forgets all permits; the workers are killed"
    )
    with harness.stopped("beat"):
        with harness.another_beat("late") as schedule:
            harness.until(lambda: any(schedule.parent.glob(f"{schedule.name}*")))
        job_id = trial.submit(file)
        trial.under_way(job_id)
        left_alone(trial, job_id)
        hours_go_by(harness, schedule)
        with harness.another_beat("late"):
            trial.fault_ended()
            done = harness.done(job_id)
            harness.until(lambda: harness.done(job_id) > done, seconds=GOES_ON_SECONDS)
            assert trial.judge(job_id, file).problems == []
            harness.until(lambda: caught_up(harness), seconds=CAUGHT_UP_SECONDS)
            # What the stack's own beat finds when it wakes up: nothing is left to ask for.
            with transaction(harness.engine) as connection:
                assert audits.request_due(connection, catch_up_hours=48) == 0
            slots = scheduled(harness)
    assert set(slots.values()) == {1}, "one audit per slot"
    for kind in ("drift", "accuracy"):
        assert len([slot for slot in slots if slot[0] == kind]) in {HOURS, HOURS + 1}  # the hour may have turned


def left_alone(trial: Trial, job_id: str) -> None:
    """No permit is anywhere, and nobody makes one: workers are there, and the job stands still."""
    harness = trial.harness
    with harness.broker() as broker:

        def forget() -> None:
            before = harness.pids["worker-bulk"]
            harness.signal_main("worker-bulk", signal.SIGKILL)
            harness.until(lambda: harness.pids["worker-bulk"] != before)
            broker.flushall()
            harness.until(lambda: harness.children("worker-bulk"))

        trial.inject(forget)
        still_since, done = time.monotonic(), harness.done(job_id)
        while time.monotonic() < still_since + QUIET_SECONDS:
            broker.flushall()
            if (now := harness.done(job_id)) != done:
                still_since, done = time.monotonic(), now
            time.sleep(0.1)
    assert not harness.is_over(job_id), "the job was over before the fault: give it more rows"


def hours_go_by(harness: Harness, schedule: Path) -> None:
    """What both would look like if beat had died so long ago: the model was deployed before, and all is overdue."""
    harness.query("DELETE FROM audit_run WHERE scheduled")
    harness.query(
        "UPDATE model_alias SET changed_at = now() - make_interval(hours => :hours) WHERE alias = 'production' AND model_id = "
        "(SELECT id FROM model WHERE name = :model)",
        hours=HOURS,
        model=MODEL,
    )
    with shelve.open(str(schedule), writeback=True) as kept:
        for entry in kept["entries"].values():
            entry.last_run_at -= timedelta(hours=HOURS)


def caught_up(harness: Harness) -> bool:
    states = harness.query("SELECT state FROM audit_run WHERE scheduled")
    return bool(states) and {row.state for row in states} == {"done"}


def scheduled(harness: Harness) -> Counter[tuple[str, object]]:
    return Counter((row.kind, row.window_end) for row in harness.query("SELECT * FROM audit_run WHERE scheduled"))
