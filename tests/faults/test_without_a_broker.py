"""No broker at all: the API accepts, and a worker that polls does everything that waits."""

from __future__ import annotations

import signal
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psutil
from apart import Apart
from customers import Customers
from harness import MODEL, VERSION
from verdict import check

from cli import servers
from db import audits
from db.audits import Policy, Request
from db.engine import transaction
from settings import Settings

ROWS = 20_000


def test_singles_and_files_are_scored_while_children_are_killed(apart: Apart, customers: Customers) -> None:
    file = customers.file(ROWS)
    job_id = apart.submit(file.body)
    apart.until(lambda: apart.done(job_id) >= 2)
    for child in apart.children("worker"):
        with suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGKILL)
    single = apart.client.wait(apart.client.submit(MODEL, customers.record(1)).id, timeout=60)
    apart.client.wait(job_id, timeout=60)
    assert check(apart.engine, job_id, file.expected).problems == []
    assert single.state == "succeeded"
    assert single.result is not None
    assert str(single.result["prediction"]) == file.expected.predictions[0]
    assert apart.logged("child_ended") == 2


def test_a_single_waits_for_about_one_interval(apart: Apart, customers: Customers) -> None:
    apart.until(lambda: not apart.query("SELECT 1 FROM job WHERE finished_at IS NULL"))
    apart.client.wait(apart.client.submit(MODEL, customers.record(1)).id, timeout=60)
    waited = []
    for row in range(2, 7):
        job = apart.client.wait(apart.client.submit(MODEL, customers.record(row)).id, timeout=60)
        assert job.finished_at is not None
        assert job.created_at is not None
        waited.append((job.finished_at - job.created_at).total_seconds())
    assert sorted(waited)[2] < 2.0


def test_it_is_seen_by_health_and_doctor(apart: Apart) -> None:
    apart.until(lambda: apart.client.health()["status"] == "ok")
    settings = Settings(data_dir=apart.folder, database_url=apart.environment["SCOREHOUSE_DATABASE_URL"])
    found = {each.name: each for each in servers.database(settings)}
    assert found["workers"].state == "ok"
    assert "2 for interactive, 2 for bulk" in found["workers"].detail
    assert found["production models"].state == "ok"
    told = servers.broker(settings)
    assert (told.state, told.detail) == ("warning", "none is set")
    assert "worker --poll" in told.advice


def test_it_audits_and_keeps_house(apart: Apart) -> None:
    (version,) = apart.query("SELECT id, model_id FROM model_version WHERE version = :version", version=VERSION)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    window = Request(
        "drift", version.model_id, version.id, end - timedelta(hours=24), end, Policy().configuration, alerting=False
    )
    with transaction(apart.engine) as connection:
        audits.request(connection, window)
    apart.until(lambda: apart.query("SELECT 1 FROM audit_run WHERE window_end = :e AND state = 'done'", e=end))
    for name in ("housekeeping", "rollup"):
        runs = apart.query("SELECT finished_at FROM periodic_run WHERE name = :name", name=name)
        assert runs, f"{name} ran"
        assert all(run.finished_at for run in runs)


def test_one_of_the_training_lane_trains(apart: Apart) -> None:
    apart.start("worker", "--poll", "--lane", "training", "--concurrency", "1", name="trainer")
    run = apart.client.wait_for_training(apart.client.retrain(MODEL), timeout=60)
    assert run["state"] == "skipped", "no label has come yet"
    assert apart.stop("trainer") == 0


def test_it_drains_on_sigterm(apart: Apart, customers: Customers) -> None:
    file = customers.file(ROWS)
    job_id = apart.submit(file.body)
    apart.until(lambda: apart.done(job_id) >= 1)
    children = apart.children("worker")
    assert apart.stop("worker") == 0
    assert not any(child.is_running() for child in children)
    assert not apart.query("SELECT 1 FROM chunk WHERE state = 'running'"), "what was in hand is finished"
    assert not apart.query("SELECT 1 FROM chunk WHERE crashes > 0 AND job_id = :job", job=job_id)
    assert not apart.query("SELECT 1 FROM worker_heartbeat"), "nobody counts on it any more"
    apart.start_worker(1)
    apart.client.wait(job_id, timeout=60)
    assert check(apart.engine, job_id, file.expected).problems == []


def test_its_children_end_when_it_is_killed(apart: Apart) -> None:
    children = apart.until(lambda: apart.children("worker"))
    apart.kill("worker")
    apart.until(lambda: not any(child.is_running() for child in children))
