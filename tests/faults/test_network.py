"""A network between the stack and Postgres that is slow, swallows everything, or forgets the connections that there were."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from customers import Customers, File
from harness import LEASE_SECONDS, MODEL, PACE, ROWS, SECONDS, WORKERS, Harness
from proxy import Proxy
from trial import RECOVERY_SECONDS, Trial

Begin = Callable[[int | str, str], Trial]
Harm = Callable[[Proxy, bytes], None]

WORKER, API = b"application_name\0worker ", b"application_name\0scorehouse-api\0"
HARMS = [Proxy.silence, Proxy.black_hole]
# Until a request that was waiting is told: 5 s of silence, 3 s for an answer over another connection, and what comes after.
NOTICED_SECONDS = 25.0
BACK_SECONDS = 10.0
AT_ONCE = 24

# A round trip, and a lease that is good for it: a finish takes nine of them. The long form has the lease of the product.
LATENCY_SECONDS, LATENCY_LEASE = (0.5, "30") if SECONDS >= 30 else (0.05, str(LEASE_SECONDS))


@pytest.mark.parametrize("harm", HARMS)
def test_others_go_on_while_a_child_hears_nothing(harm: Harm, begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(15, f"one child's connections to Postgres are half-open ({harm.__name__}), as long as the job lasts")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    child = harness.until(lambda: _with_a_claim(harness, job_id))
    trial.inject(lambda: harm(harness.to_postgres, b"application_name\0worker bulk %d\0" % child))
    trial.fault_ended()  # for the others, who have to do its work
    try:
        assert trial.judge(job_id, file).problems == []
    finally:
        harness.to_postgres.heal()
    harness.until(lambda: harness.beats_since(child, 3), seconds=BACK_SECONDS)
    assert child in [each.pid for each in harness.children("worker-bulk")], "it had to be started again"


@pytest.mark.parametrize("harm", HARMS)
def test_workers_come_back_from_a_network_that_swallowed_everything(
    harm: Harm, begin: Begin, harness: Harness, file: File
) -> None:
    trial = begin(15, f"all workers' connections to Postgres are half-open ({harm.__name__}), and stay so")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    children = {each.pid for each in harness.children()}
    trial.inject(lambda: harm(harness.to_postgres, WORKER))
    ends = time.monotonic() + trial.seconds
    harness.until(lambda: time.monotonic() > ends, seconds=trial.seconds + 1)
    done = harness.done(job_id)
    harness.to_postgres.heal()
    trial.fault_ended()
    harness.until(lambda: harness.done(job_id) > done, seconds=RECOVERY_SECONDS)
    assert trial.judge(job_id, file).problems == []
    assert {each.pid for each in harness.children()} == children, "a child had to be started again"


@pytest.mark.parametrize("harm", HARMS)
def test_the_api_says_503_in_time_when_it_hears_nothing(
    harm: Harm, begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin(15, f"the API's connections to Postgres are half-open ({harm.__name__})")
    few = customers.file(500)
    harness.submit_one()  # connections are there
    trial.inject(lambda: harm(harness.to_postgres, API))
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as clients:
            answers = [clients.submit(harness.submit_one) for _ in range(AT_ONCE)]
            health = harness.ask("GET", "/health")
            statuses = {each.result().status for each in answers}
        took = time.monotonic() - began
        assert statuses == {503}
        assert health.status == 503
        assert "database" in health.json()
        assert took < NOTICED_SECONDS, f"an answer took {took:.1f} s"
        again = harness.submit_one()
        assert again.headers["Retry-After"] == "2"
        assert again.json()["type"] == "urn:scorehouse:problem:unavailable"
    finally:
        harness.to_postgres.heal()
    harness.until(lambda: harness.submit_one().status == 202, seconds=BACK_SECONDS)
    trial.fault_ended()
    assert trial.judge(trial.submit(few), few).problems == []
    assert [row.state for row in harness.query("SELECT DISTINCT state FROM job WHERE state = 'receiving'")] == []


@pytest.fixture
def far_harness(request: pytest.FixtureRequest, tmp_path: Any, customers: Customers) -> Iterator[Harness]:
    if int(LATENCY_LEASE) == LEASE_SECONDS:
        yield request.getfixturevalue("harness")
        return
    settings = {"SCOREHOUSE_LEASE_SECONDS": LATENCY_LEASE, "SCOREHOUSE_CHUNK_TIME_LIMIT": "20"}
    with Harness(tmp_path, customers, PACE, **settings) as harness:
        yield harness


def test_latency_costs_time_and_no_lease(far_harness: Harness, trials: list[Trial], customers: Customers) -> None:
    harness, file = (
        far_harness,
        customers.file(ROWS // 6),
    )  # each chunk takes two or three seconds' worth of round trips
    trial = Trial(harness, 16, f"a round trip to Postgres takes {LATENCY_SECONDS} s", SECONDS)
    trials.append(trial)
    trial.inject(lambda: setattr(harness.to_postgres, "latency", LATENCY_SECONDS))
    try:
        job_id = trial.submit(file)
        single = harness.client.submit(MODEL, harness.customers.record(1), wait=30)
        assert single.state == "succeeded"
        assert trial.judge(job_id, file).problems == []
    finally:
        harness.to_postgres.heal()
    assert (trial.line.rescued, trial.line.fenced) == (0, 0)


def _with_a_claim(harness: Harness, job_id: str) -> int | None:
    """The pid of a child that has a chunk of the job in its hands."""
    owners = [row.owner for row in harness.chunks(job_id, "running")]
    pids = [each.pid for each in harness.children(*WORKERS)]
    return next((pid for pid in pids for owner in owners if f":{pid}/" in owner), None)
