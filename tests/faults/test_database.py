"""A database that crashes, that ends connections and that has none left, while a job runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import psycopg2
from customers import Customers, File
from harness import Harness
from trial import Trial

Begin = Callable[[int | str, str], Trial]

ANSWER_SECONDS = 5.0
BACK_SECONDS = 10.0
OF_THE_STACK = "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^(worker|scorehouse-api)'"


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


def test_others_hold_all_connections(begin: Begin, harness: Harness, customers: Customers, file: File) -> None:
    trial = begin(18, "others hold all connections of Postgres")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    few = customers.file(500)
    with _all_taken(harness):
        trial.inject(lambda: None)
        ends = time.monotonic() + trial.seconds
        while True:
            began = time.monotonic()
            answer = harness.submit_one()
            health = harness.ask("GET", "/health")
            assert time.monotonic() - began < ANSWER_SECONDS
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert health.status == 503
            assert "connection" in health.json()["database"]
            if time.monotonic() > ends:
                break
        assert harness.query(OF_THE_STACK) == [], "a connection was left for the stack"
    trial.fault_ended()
    harness.until(lambda: harness.submit_one().status == 202, seconds=BACK_SECONDS)
    assert trial.judge(job_id, file).problems == []
    assert trial.judge(trial.submit(few), few).problems == []


@contextmanager
def _all_taken(harness: Harness) -> Iterator[None]:
    """Take every connection that is not reserved for superusers, those of the stack too."""
    url = harness.postgres.app_url.replace("postgresql+psycopg2://", "postgresql://")

    def take() -> None:
        with suppress(psycopg2.OperationalError):
            while True:
                held.callback(psycopg2.connect(url, application_name="others").close)

    def none_left() -> bool:
        take()
        harness.query(f"SELECT pg_terminate_backend(pid) FROM ({OF_THE_STACK}) AS of_the_stack")
        take()
        return not harness.query(OF_THE_STACK)

    with ExitStack() as held:
        harness.until(none_left)
        yield


def test_the_clock_of_the_database_steps(begin: Begin, harness: Harness, file: File) -> None:
    """What is stored is shifted instead of the clock, which is the same to whoever compares the two."""
    trial = begin("clock", "the database's clock steps an hour ahead, and five seconds back")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    ahead = "UPDATE chunk SET lease_until = lease_until - interval '1 hour' WHERE state = 'running'"
    trial.inject(lambda: harness.query(ahead))
    back = """
        UPDATE chunk SET lease_until = lease_until + interval '5 seconds', not_before = now() + interval '5 seconds'
        WHERE state IN ('queued', 'running')
    """
    trial.inject(lambda: harness.query(back))
    trial.fault_ended()
    assert trial.judge(job_id, file).problems == []
