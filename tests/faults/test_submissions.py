"""Clients that go away, a production version that changes, and singles beside a large file."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
from customers import Customers, File
from harness import MODEL, ROWS, VERSION, Harness
from trial import Trial

from benchmarks.slow_clients import EndlessBody, slow_bodies

Begin = Callable[[int | str, str], Trial]

ENDLESS_BYTES = 60_000_000
FLAT_BYTES = 64 << 20


def test_a_client_that_leaves_in_mid_upload_leaves_nothing(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(22, "the client disconnects in mid-upload")
    before = harness.query("SELECT id FROM job")

    def leave() -> None:
        harness.upload_and_leave(file.body[: len(file.body) // 2], len(file.body))

    trial.inject(leave)
    harness.until(lambda: harness.query("SELECT id FROM job") == before)
    assert harness.query("SELECT count(*) FROM chunk WHERE job_id NOT IN (SELECT id FROM job)")[0].count == 0
    assert harness.query("SELECT count(*) FROM prediction WHERE job_id NOT IN (SELECT id FROM job)")[0].count == 0


def test_slow_clients_and_an_endless_body_leave_nothing_and_stop_nobody(
    begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin(22, "50 slow clients and an endless body, until others are served")
    url, few = str(harness.stack.found["api_url"]), customers.file(500)
    token = (harness.stack.data_dir / "admin.token").read_text().strip()
    before = harness.query("SELECT id FROM job")
    rss = _api_rss(harness)
    with (
        slow_bodies(url, 50, token, MODEL).running(),
        EndlessBody(url, token, MODEL, ENDLESS_BYTES).running() as endless,
    ):
        trial.line.injected = 51
        job_id = trial.submit(few)
        assert trial.judge(job_id, few).problems == []
        harness.until(lambda: endless.sent >= ENDLESS_BYTES or endless.answer)
    harness.until(lambda: len(harness.query("SELECT id FROM job")) == len(before) + 1)
    assert harness.query("SELECT count(*) FROM chunk WHERE job_id NOT IN (SELECT id FROM job)")[0].count == 0
    assert all(grown < FLAT_BYTES for grown in (after - rss[pid] for pid, after in _api_rss(harness).items()))


def test_a_hundred_submits_at_once_with_one_key_make_one_job(
    begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin(23, "a file and one idempotency key, 100 clients at once")
    few = customers.file(500)
    trial.line.rows = few.expected.rows

    def submit(_: int) -> str:
        trial.inject(lambda: None)
        return harness.submit(few.body, idempotency_key="crowd")

    with ThreadPoolExecutor(100) as clients:
        (job_id,) = set(clients.map(submit, range(100)))
    assert harness.query("SELECT count(*) FROM job WHERE idempotency_key = 'crowd'")[0].count == 1
    assert trial.judge(job_id, few).problems == []


def test_a_job_keeps_its_version_when_production_is_switched(
    begin: Begin, harness: Harness, customers: Customers
) -> None:
    # Twice the usual number: a deployment takes some seconds.
    file = customers.file(2 * ROWS)
    trial = begin(24, "production is switched in mid-job and rolled back")
    harness.register("2.0.0", seconds_per_row=0.0)
    harness.client.deploy(MODEL, VERSION)
    job_id = trial.submit(file)
    trial.under_way(job_id)
    trial.inject(lambda: harness.client.deploy(MODEL, "2.0.0"))
    few = customers.file(500)
    after = trial.submit(few)
    trial.inject(lambda: harness.client.rollback(MODEL))
    assert not harness.is_over(job_id), "the job was over before the switch: give it more rows"
    assert trial.judge(job_id, file).problems == []
    assert trial.judge(after, few).problems == []
    assert _versions(harness, job_id) == [VERSION]
    assert _versions(harness, after) == ["2.0.0"]


def test_singles_do_not_wait_behind_a_file(begin: Begin, harness: Harness, customers: Customers, file: File) -> None:
    trial = begin("singles", "singles while a large file is scored")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    for row in range(1, 11):
        single = harness.client.submit(MODEL, customers.record(row), wait=10)
        assert single.state == "succeeded"
        trial.line.injected += 1
    assert not harness.is_over(job_id), "the singles waited for the file, or the file was too small"
    assert trial.judge(job_id, file).problems == []


def _api_rss(harness: Harness) -> dict[int, int]:
    """Resident bytes of each process of the API."""
    return {each.pid: each.memory_info().rss for each in psutil.Process(harness.pids["api"]).children()}


def _versions(harness: Harness, job_id: str) -> list[str]:
    query = """
        SELECT DISTINCT v.version FROM prediction p JOIN model_version v ON v.id = p.version_id WHERE p.job_id = :job
    """
    return [row.version for row in harness.query(query, job=job_id)]
