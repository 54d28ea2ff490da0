"""A worker, the broker or the database is lost in the middle of a deployment, while a job of the old version runs.

The deployment has a replay, so that it lasts: it must go on where it was, or fail and say why; production is one version
at any time, and the job keeps its own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from customers import Customers, File
from harness import MODEL, PACE, Harness
from trial import Trial

Begin = Callable[[int | str, str], Trial]

ROWS = 40_000  # of the job of the old version
GATE = {"replay_rows": 12_000, "max_slowdown": 100.0}
WAIT_SECONDS = 60.0


@pytest.fixture
def file(customers: Customers) -> File:
    return customers.file(ROWS)


@pytest.fixture
def deployment(harness: Harness) -> Deployment:
    return Deployment(harness, f"{2 + len(harness.client.model(MODEL).versions)}.0.0")


class Deployment:
    """Of a version that answers as production does, at its own pace and so with a digest of its own."""

    def __init__(self, harness: Harness, version: str) -> None:
        self.harness = harness
        self.version = version
        self.before = str(harness.client.model(MODEL).production)
        artefact = harness.customers.artefact(PACE * (1 + float(version[0]) / 100))
        columns = {"key": "customer_id", "target": "churn"}
        harness.client.register_version(MODEL, version, artefact, harness.customers.reference, trust=True, **columns)
        self.id = ""

    def begin(self) -> None:
        self.id = self.harness.client.deploy(MODEL, self.version, gate=GATE, wait=False).id

    @property
    def row(self) -> Any:
        return self.harness.query("SELECT * FROM deployment WHERE id = :id", id=self.id)[0]

    def replaying(self) -> Any:
        """Its row, once some rows were replayed and before all were."""
        row = self.row
        assert row.state in {"warming", "validating"}, f"it was over before the fault: {row.state} {row.reasons}"
        replay = row.checks.get("replay", {})
        return row if row.owner and 0 < replay.get("rows", 0) < GATE["replay_rows"] else None

    def ended(self) -> Any:
        """Its row when it is over; until then, whoever looks sees the old version in production, and from then on one."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (row := self.row).state in {"warming", "validating"}:
            assert time.monotonic() < deadline, f"it is still {row.state}: {row.checks}"
            assert self.production() in {self.before, self.version}
            time.sleep(0.05)
        assert self.production() == (self.version if row.state == "live" else self.before)
        assert row.state == "live" or row.reasons
        return row

    def production(self) -> str:
        query = (
            "SELECT v.version FROM model_alias a JOIN model_version v ON v.id = a.version_id WHERE alias = 'production'"
        )
        (found,) = self.harness.query(query)
        return str(found.version)


def test_the_worker_that_deploys_is_killed(begin: Begin, harness: Harness, file: File, deployment: Deployment) -> None:
    trial = begin("24b", "SIGKILL the child that takes a deployment further")
    earlier = trial.submit(file)
    trial.judge(earlier, file)
    job_id = trial.submit(file)
    deployment.begin()
    row = harness.until(deployment.replaying)
    killed = next(child for child in harness.children() if f":{child.pid}/" in row.owner)
    trial.inject(lambda: killed.send_signal(signal.SIGKILL))
    harness.until(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
    replayed = deployment.row.checks["replay"]["rows"]
    trial.fault_ended()
    ended = deployment.ended()
    assert (ended.state, ended.reasons) == ("live", [])
    assert ended.checks["replay"]["rows"] == GATE["replay_rows"] > replayed
    assert trial.judge(job_id, file).problems == []
    assert harness.client.job(job_id).model_version == deployment.before


def test_the_broker_dies_in_the_middle_of_a_deployment(
    begin: Begin, harness: Harness, file: File, deployment: Deployment
) -> None:
    trial = begin("24c", "SIGKILL Valkey in the middle of a deployment, restart it empty")
    job_id = trial.submit(file)
    deployment.begin()
    harness.until(deployment.replaying)
    trial.inject(harness.kill_valkey)
    try:
        # Whoever has its permit goes on until the permit's time is over, or to the end, whichever comes first.
        harness.until(lambda: deployment.row.lease_until is None or deployment.row.state == "live")
        expected = deployment.version if deployment.row.state == "live" else deployment.before
        assert deployment.production() == expected
    finally:
        harness.valkey.start()
    trial.fault_ended()
    assert (deployment.ended().state, deployment.ended().reasons) == ("live", [])
    assert trial.judge(job_id, file).problems == []
    assert harness.client.job(job_id).model_version == deployment.before


def test_the_database_crashes_in_the_middle_of_a_deployment(
    begin: Begin, harness: Harness, file: File, deployment: Deployment
) -> None:
    trial = begin("24d", "Postgres stops at once and restarts, in the middle of a deployment")
    job_id = trial.submit(file)
    deployment.begin()
    harness.until(deployment.replaying)

    def crash() -> None:
        harness.postgres.stop("immediate")
        harness.postgres.start()
        harness.engine.dispose()

    trial.inject(crash)
    trial.fault_ended()
    ended = deployment.ended()
    assert (ended.state, ended.reasons) == ("live", [])
    assert trial.judge(job_id, file).problems == []
    assert harness.client.job(job_id).model_version == deployment.before
