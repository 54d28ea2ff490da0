"""A database that crashes, and connections that it ends, while a job runs."""

from __future__ import annotations

from collections.abc import Callable

import psutil
from customers import File
from harness import Harness
from trial import Trial

Begin = Callable[[int | str, str], Trial]


def test_postgres_crashes_and_recovers(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(13, "Postgres stops at once and restarts, every 3 s")
    job_id = trial.submit(file)
    trial.under_way(job_id)

    def crash() -> None:
        harness.postgres.stop("immediate")
        harness.postgres.start()
        harness.engine.dispose()

    trial.repeatedly(crash, job_id, every=3.0)
    assert trial.judge(job_id, file).problems == []


def test_sessions_are_ended_at_random(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(14, "pg_terminate_backend of a random session of API or worker, every 0.2 s")
    job_id = trial.submit(file)
    trial.repeatedly(harness.end_a_session, job_id, every=0.2)
    assert trial.judge(job_id, file).problems == []


def test_a_child_that_is_frozen_within_a_transaction_holds_up_nobody_for_long(
    begin: Begin, harness: Harness, file: File
) -> None:
    trial = begin("13b", "SIGSTOP a child within a transaction, for as long as the job lasts")
    job_id = trial.submit(file)
    with harness.frozen_in_a_transaction() as frozen:
        trial.inject(lambda: None)
        trial.fault_ended()
        assert trial.judge(job_id, file).problems == []
        assert frozen.status() == psutil.STATUS_STOPPED
